"""
Looks for what proves that a custom domain belongs to whoever claims it: a TXT record, or an answer by HTTP.

Names are resolved by DNS, once for each check, and the address that was looked at is the one that is connected to. Each
check is bounded in time, in what it reads and in how many are made at once.
"""

from __future__ import annotations

import asyncio
import ssl
from importlib import import_module

import httpx

from gateway.core.errors import TooManyNameChecks
from gateway.core.names import ActorName
from gateway.settings import Settings
from gateway.sources.addresses import is_public

_AT_ONCE = 8
_HTTP_SECS = 10.0
_MAX_BODY_BYTES = 1024
_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_USUAL_PORTS = {"http": 80, "https": 443}


class _NoProof(Exception):
    """What there is in place of a proof, in words."""


class NameProofs:
    """The checks of one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._under_way = 0

    def url(self, name: ActorName) -> str:
        """Where the proof is looked for by HTTP."""
        port = self._settings.name_check_port
        return f"http://{name.name}{'' if port == _USUAL_PORTS['http'] else f':{port}'}{name.proof_path}"

    async def missing(self, name: ActorName, *, by_http: bool) -> list[str]:
        """
        Why *name* is not proven: what was found at each place that was looked at, in words. Empty: it is proven.

        Raises TooManyNameChecks.
        """
        if self._under_way >= _AT_ONCE:
            raise TooManyNameChecks
        self._under_way += 1
        try:
            return await self._missing(name, by_http=by_http)
        finally:
            self._under_way -= 1

    async def _missing(self, name: ActorName, *, by_http: bool) -> list[str]:
        # Only now, since it is some MiB that most gateways never need; in a thread, as it takes a while.
        await asyncio.to_thread(import_module, "gateway.dns_lookup")
        places = [(f"the TXT record {name.proof_record}", self._dns)]
        if by_http:
            places.append((self.url(name), self._http))
        found = []
        for where, look in places:
            try:
                await look(name)
            except _NoProof as instead:
                found.append(f"{where}: {instead}")
            else:
                return []
        return found

    async def _dns(self, name: ActorName) -> None:
        from gateway.dns_lookup import NotInDns, texts_of

        try:
            texts = await texts_of(name.proof_record, self._settings.dns_servers)
        except NotInDns as error:
            raise _NoProof(str(error)) from error
        if name.proof.encode() not in texts:
            raise _NoProof("it says something else")

    async def _http(self, name: ActorName) -> None:
        try:
            async with asyncio.timeout(_HTTP_SECS):
                address = await self._address(name.name)
                body = await self._body(name, address)
        except TimeoutError:
            raise _NoProof(f"no answer within {_HTTP_SECS:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _NoProof(f"it can't be read ({error or type(error).__name__})") from error
        if body.strip() != name.proof.encode():
            raise _NoProof("it answers something else")

    async def _address(self, host: str) -> str:
        from gateway.dns_lookup import NotInDns, addresses_of

        try:
            found = await addresses_of(host, self._settings.dns_servers)
        except NotInDns as error:
            raise _NoProof(f"the address of {host}: {error}") from error
        private = next((address for address in found if not is_public(address)), None)
        if private is not None and not self._settings.allow_private_names:
            raise _NoProof(
                f"the address of {host} is {private}, which is not of the internet; it is asked only where the "
                "administrator allows it (setting: allow_private_names)"
            )
        # IPv4 first: a machine without a route for IPv6 is more common than the other way round.
        return min(found, key=lambda address: ":" in address)

    async def _body(self, name: ActorName, address: str) -> bytes:
        url = httpx.URL(self.url(name))
        # In a thread: reading all the roots takes as long as hundreds of requests.
        context = await asyncio.to_thread(ssl.create_default_context)
        # Without a proxy that the environment names: whom it connects to could not be checked.
        async with httpx.AsyncClient(trust_env=False, timeout=_HTTP_SECS, verify=context) as client:
            for _ in range(_MAX_REDIRECTS + 1):
                request = client.build_request(
                    "GET",
                    url.copy_with(host=address),
                    headers={"Host": url.netloc.decode(), "Accept-Encoding": "identity"},
                    extensions={"sni_hostname": name.name},
                )
                answer = await client.send(request, stream=True)
                try:
                    if answer.status_code not in _REDIRECTS or "location" not in answer.headers:
                        return await _read(answer)
                    url = self._followed(name, url, answer.headers["location"])
                finally:
                    await answer.aclose()
        raise _NoProof(f"it is redirected more than {_MAX_REDIRECTS} times")

    def _followed(self, name: ActorName, url: httpx.URL, location: str) -> httpx.URL:
        """Most sites send everybody to HTTPS; further than that, and away from the name, nobody is followed."""
        following = url.join(location)
        ports = {*_USUAL_PORTS.values(), self._settings.name_check_port}
        port = following.port or _USUAL_PORTS.get(following.scheme)
        if following.raw_host != name.name.encode() or port not in ports or following.userinfo:
            raise _NoProof("it is redirected to another place")
        return following


async def _read(answer: httpx.Response) -> bytes:
    if answer.status_code != 200:
        raise _NoProof(f"the server answers {answer.status_code}")
    body = b""
    async for piece in answer.aiter_raw():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            raise _NoProof("it answers something else")
    return body
