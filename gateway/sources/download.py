"""Gets an archive by HTTP, into a file: bounded in size and time, and only from where builds may fetch from."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from urllib.parse import urljoin

import httpx

from gateway.core.errors import RequestTooLarge, SourceError
from gateway.sources.places import Place, archive_place
from gateway.sources.reaching import address_of

MAX_ARCHIVE_BYTES = 256 * 1024 * 1024
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CONNECT_SECS, _SILENT_SECS = 10.0, 60.0


async def download(place: Place, path: Path, *, may_be_private: bool, max_bytes: int = MAX_ARCHIVE_BYTES) -> None:
    """
    Write what *place* gives to *path*. Raises SourceError and RequestTooLarge.

    Each host, also of a redirect, is resolved once, and the address that was checked is the one that is connected to.
    A proxy that the environment names is not used: whom it connects to could not be checked.
    """
    timeout = httpx.Timeout(_SILENT_SECS, connect=_CONNECT_SECS)
    async with httpx.AsyncClient(trust_env=False, timeout=timeout, verify=ssl.create_default_context()) as client:
        for _ in range(_MAX_REDIRECTS + 1):
            address = await address_of(place.host, place.port, may_be_private=may_be_private)
            try:
                moved = await _get(client, place, address, path, max_bytes)
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                raise SourceError(f"{place.url} can't be fetched: {error or type(error).__name__}.") from error
            if moved is None:
                return
            # A login is for the host that it was given for.
            following = archive_place(moved)
            is_same = (following.scheme, following.host, following.port) == (place.scheme, place.host, place.port)
            login = following.login or (place.login if is_same else None)
            place = Place(url=following.url, host=following.host, port=following.port, login=login)
    raise SourceError(f"{place.url} can't be fetched: it was redirected more than {_MAX_REDIRECTS} times.")


async def _get(client: httpx.AsyncClient, place: Place, address: str, path: Path, max_bytes: int) -> str | None:
    """Where it has moved to; None once it is in the file."""
    url = httpx.URL(place.url)
    headers = {"Host": url.netloc.decode(), "Accept": "*/*", "Accept-Encoding": "identity"}
    if place.login is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(place.login.encode()).decode()
    request = client.build_request(
        "GET", url.copy_with(host=address), headers=headers, extensions={"sni_hostname": place.host}
    )
    answer = await client.send(request, stream=True)
    try:
        if answer.status_code in _REDIRECTS and "location" in answer.headers:
            return urljoin(place.url, answer.headers["location"])
        if answer.status_code != 200:
            raise SourceError(f"{place.url} can't be fetched: the server answers {answer.status_code}.")
        length = 0
        with path.open("wb") as file:
            async for chunk in answer.aiter_raw():
                length += len(chunk)
                if length > max_bytes:
                    raise RequestTooLarge(f"{place.url} gives more than {max_bytes // (1024 * 1024)} MiB.")
                file.write(chunk)
    finally:
        await answer.aclose()
    return None
