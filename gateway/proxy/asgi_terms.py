"""
On what terms the ASGI way forwards requests that share their headers: who may, to which pool, and what the Actor gets.

Terms are made once and hold as long as all that they were made from does: the headers and where they came from, the
Actor's settings, and what is remembered of the token. Each request looks whether that is so; what changes more often
(slots, runs) it asks anew. A request whose target may hold a token has terms of its own.

They hold tokens: ``clear`` them, never print them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from gateway.client_address import client_of
from gateway.core.model import Address
from gateway.core.standby import StandbyTarget
from gateway.proxy.asgi import Scope, host_of, wire_of
from gateway.proxy.callers import Caller, caller_at_once, caller_of, own_tokens, own_tokens_at_once
from gateway.proxy.decisions import Decisions
from gateway.proxy.headers import Prepared, candidates_of, credentials_of, prepare
from gateway.proxy.http import may_be_unsized
from gateway.proxy.ignored import Ignores, ignoring
from gateway.proxy.plan import ForwardPlan
from gateway.proxy.slots import Want

_MAX_ENTRIES = 4096
_MAX_HEAD_BYTES = 4096
_MAX_BYTES = 4 * 1024 * 1024
_NOWHERE = Address(host="", port=0)

_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Terms:
    """
    ``subject`` is the standby target, or the label of a live view; ``want`` is None there.

    ``plan`` has everything but what is one request's own (``Errand``). ``prepared`` is None where the headers for the
    Actor hang on its address, and for WebSockets. ``ignores`` and ``silence_secs`` tell which requests are no use of
    their run. *until* and *epoch* are the authenticator's.
    """

    subject: StandbyTarget | str
    want: Want | None
    plan: ForwardPlan
    prepared: Prepared | None
    ignores: Ignores | None
    silence_secs: float | None
    pick_secs: float
    first_byte_secs: float
    epoch: int
    until: float


@dataclass(slots=True, repr=False)
class TermsBook:
    """
    Terms by headers, of bounded size, and dropped whole when it is full.

    Each question has two forms: ``…_at_once`` answers from memory, or None where the records have to be asked, as the
    other form then does. Both raise the errors of their host.
    """

    decisions: Decisions
    max_entries: int = _MAX_ENTRIES
    max_bytes: int = _MAX_BYTES
    hits: int = 0
    misses: int = 0
    _known: dict[_Key, Terms] = field(default_factory=dict)
    _bytes: int = 0

    def standby_at_once(self, scope: Scope, target: StandbyTarget, prefix: str, now: float) -> Terms | None:
        """The terms of a request at the standby host of *target*; *prefix* is the path form's."""
        wire = wire_of(scope)
        terms: Terms | None = wire.memo.get("terms") if wire is not None and wire.memo is not None else None
        if (
            terms is not None
            and terms.subject is target
            and terms.plan.prefix == prefix
            and self._holds(terms, scope, now)
        ):
            self.hits += 1
            return terms
        key = _key(scope, prefix)
        terms = self._known.get(key)
        if terms is not None and terms.subject is target and self._holds(terms, scope, now):
            self.hits += 1
            _note(terms, scope)
            return terms
        caller = caller_at_once(_tokens(scope), target, self.decisions.auth)
        want = self.decisions.want(target, caller) if caller is not None else None
        if caller is None or want is None:
            return None
        terms = self._terms(scope, target, caller, want, prefix)
        self._remember(key, terms, scope)
        return terms

    async def standby(self, scope: Scope, label: str, target: StandbyTarget, prefix: str) -> Terms:
        """The same, of the host named *label*."""
        caller = await caller_of(_tokens(scope), target, self.decisions.auth)
        want = self.decisions.want(target, caller)
        if want is None:
            want = await self.decisions.want_with_build(label, target, caller)
        return self._terms(scope, target, caller, want, prefix)

    def view_at_once(self, scope: Scope, label: str, prefix: str, now: float) -> Terms | None:
        """The terms of a request to a run's live view, whose label is the secret."""
        key = _key(scope, prefix)
        terms = self._known.get(key)
        if terms is not None and self._holds(terms, scope, now) and terms.subject == label:
            self.hits += 1
            return terms
        caller = own_tokens_at_once(_tokens(scope), self.decisions.auth)
        if caller is None:
            return None
        terms = self._terms(scope, label, caller, None, prefix)
        self._remember(key, terms, scope)
        return terms

    async def view(self, scope: Scope, label: str, prefix: str) -> Terms:
        """The same."""
        own = await own_tokens(_tokens(scope), self.decisions.auth)
        return self._terms(scope, label, Caller(principal=None, own=own, until=0.0), None, prefix)

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def _holds(self, terms: Terms, scope: Scope, now: float) -> bool:
        return terms.epoch == self.decisions.auth.epoch and now < terms.until and not _may_hold_token(scope)

    def _remember(self, key: _Key, terms: Terms, scope: Scope) -> None:
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > _MAX_HEAD_BYTES or _may_hold_token(scope):
            return
        if len(self._known) >= self.max_entries or self._bytes + size > self.max_bytes:
            self.clear()
        self._known[key] = terms
        self._bytes += size
        _note(terms, scope)

    def _terms(
        self, scope: Scope, subject: StandbyTarget | str, caller: Caller, want: Want | None, prefix: str
    ) -> Terms:
        self.misses += 1
        decisions, headers = self.decisions, scope["headers"]
        target = subject if isinstance(subject, StandbyTarget) else None
        config = target.config if target is not None else None
        client = client_of(
            _peer(scope),
            headers,
            trusted=decisions.settings.trusted_proxies,
            scheme="https" if scope.get("scheme") in ("https", "wss") else decisions.settings.public_scheme,
        )
        host = host_of(scope)
        plan = ForwardPlan(
            address=_NOWHERE,
            request_id="",
            credentials=credentials_of(headers, scope["query_string"], caller.own),
            keep_credentials=config is not None and config.forward_credentials,
            prefix=prefix,
            is_sandboxed=bool(prefix),
            client_host=client.address,
            proxies=client.proxies,
            scheme=client.scheme,
            host=host.decode("latin-1"),
            stream_idle_timeout_secs=config.stream_idle_timeout_secs if config is not None else None,
        )
        prepared = None
        if host and scope["type"] == "http":
            version = scope.get("http_version", "1.1")
            prepared = prepare(headers, plan, is_chunked=may_be_unsized(scope), version=version)
        return Terms(
            subject=subject,
            want=want,
            plan=plan,
            prepared=prepared,
            ignores=ignoring(config, lambda: headers) if config is not None else None,
            silence_secs=config.stream_silence_timeout_secs if config is not None else None,
            pick_secs=decisions.pick_secs(target) if target is not None else math.inf,
            first_byte_secs=decisions.first_byte_secs(target),
            epoch=decisions.auth.epoch,
            until=caller.until,
        )


def _key(scope: Scope, prefix: str) -> _Key:
    """All that terms are made from, but for the Actor and the token; the target has no say but by the path form."""
    kind, version = scope["type"], scope.get("http_version", "1.1")
    is_unsized = version[:1] != "1" and kind == "http" and may_be_unsized(scope)
    return kind, version, is_unsized, _peer(scope), scope.get("scheme"), prefix, *scope["headers"]


def _note(terms: Terms, scope: Scope) -> None:
    """*terms* are those of the next request over this connection, if it has the same headers."""
    wire = wire_of(scope)
    if wire is not None and wire.memo is not None:
        wire.memo["terms"] = terms


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _may_hold_token(scope: Scope) -> bool:
    query = scope["query_string"]
    return b"token" in query or b"%" in query


def _tokens(scope: Scope) -> list[str]:
    return candidates_of(scope["headers"], scope["query_string"])
