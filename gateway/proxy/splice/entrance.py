"""Who may send the present request of a connection, and on what terms; what was found is remembered for the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.core.standby import StandbyTarget
from gateway.proxy import preflight
from gateway.proxy.callers import Caller, caller_at_once, caller_of, own_tokens, own_tokens_at_once
from gateway.proxy.decisions import Decisions
from gateway.proxy.slots import Want
from gateway.proxy.splice.request_cache import query_tokens
from gateway.proxy.splice.request_head import RequestHead
from gateway.proxy.splice.terms import Terms, terms_for

# A proxy in front sends requests of many callers, and to many hosts, over one connection.
_MAX_OTHERS = 32
_MAX_SHARED = 512

# By head, and by where and how its connection comes.
SharedTerms = dict[tuple[RequestHead, str, str], Terms]


@dataclass(slots=True)
class Entrance:
    """
    The door of one connection, which comes from *peer* by *scheme*. What is found out here is *shared* with others.

    Each question has two forms: ``…_at_once`` answers from memory, or None where the records have to be asked, as the
    other form then does. Both raise the errors of their host.
    """

    decisions: Decisions
    peer: str
    scheme: str
    shared: SharedTerms
    _last: Terms | None = None
    _others: dict[RequestHead, Terms] = field(default_factory=dict)

    def standby_at_once(
        self, target: StandbyTarget, head: RequestHead, path: bytes, host: bytes, now: float
    ) -> Terms | None:
        """The terms of a request for *path* at the standby host of *target*."""
        tokens = query_tokens(path) if b"?" in path else ()
        if not tokens and (known := self._known(head, target, host, now)) is not None:
            return known
        all_tokens = (*head.tokens, *tokens)
        caller = caller_at_once(all_tokens, target, self.decisions.auth)
        if caller is None:
            return None
        want = self.decisions.want(target, caller)
        if want is None:
            return None
        terms = self._terms(head, target, caller, path, host, want=want)
        if not tokens:
            self._remember(terms)
        return terms

    async def standby(self, label: str, target: StandbyTarget, head: RequestHead, path: bytes, host: bytes) -> Terms:
        """The same, of the host named *label*."""
        caller = await caller_of((*head.tokens, *query_tokens(path)), target, self.decisions.auth)
        want = self.decisions.want(target, caller)
        if want is None:
            want = await self.decisions.want_with_build(label, target, caller)
        return self._terms(head, target, caller, path, host, want=want)

    def view_at_once(self, label: str, head: RequestHead, path: bytes, host: bytes, now: float) -> Terms | None:
        """The terms of a request to a run's live view, whose label is the secret."""
        tokens = query_tokens(path)
        if not tokens and (known := self._known(head, label, host, now)) is not None:
            return known
        caller = own_tokens_at_once((*head.tokens, *tokens), self.decisions.auth)
        if caller is None:
            return None
        terms = self._terms(head, label, caller, path, host)
        if not tokens:
            self._remember(terms)
        return terms

    async def view(self, label: str, head: RequestHead, path: bytes, host: bytes) -> Terms:
        """The same."""
        own = await own_tokens((*head.tokens, *query_tokens(path)), self.decisions.auth)
        return self._terms(head, label, Caller(principal=None, own=own, until=0.0), path, host)

    def is_preflight(self, target: StandbyTarget, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether an OPTIONS is answered here: preflights come without a token, and wake nobody."""
        return preflight.is_preflight("OPTIONS", list(headers)) and not self.decisions.is_warm_and_public(target)

    def _known(
        self, head: RequestHead, subject: StandbyTarget | str, host: bytes, now: float
    ) -> Terms | None:  # fmt: skip
        """What was found out before, where it still holds."""
        terms = self._last
        if terms is None or terms.head is not head:
            terms = self._others.get(head)
            if terms is None:
                terms = self.shared.get((head, self.peer, self.scheme))
                if terms is None:
                    return None
                self._keep(terms)
            self._last = terms
        if (
            (terms.subject is subject or terms.subject == subject)
            and terms.host == host
            and terms.epoch == self.decisions.auth.epoch
            and now < terms.until
        ):
            return terms
        return None

    def _remember(self, terms: Terms) -> None:
        if len(self.shared) >= _MAX_SHARED:
            self.shared.clear()
        self.shared[terms.head, self.peer, self.scheme] = terms
        self._keep(terms)

    def _keep(self, terms: Terms) -> None:
        if len(self._others) >= _MAX_OTHERS:
            self._others.clear()
        self._others[terms.head] = self._last = terms

    def _terms(
        self,
        head: RequestHead,
        subject: StandbyTarget | str,
        caller: Caller,
        path: bytes,
        host: bytes,
        *,
        want: Want | None = None,
    ) -> Terms:
        return terms_for(
            head,
            subject,
            caller,
            want,
            path.partition(b"?")[2],
            peer=self.peer,
            scheme=self.scheme,
            host=host,
            decisions=self.decisions,
        )
