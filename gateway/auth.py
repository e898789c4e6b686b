"""Whose token this is and what it may do: one door for the proxy, the API and the events socket."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from sys import intern
from typing import Any, NamedTuple

from gateway.core.errors import InsufficientPermissions, TokenNotFound
from gateway.core.ids import token_digest
from gateway.core.model import Token
from gateway.secret_box import SecretBox
from gateway.state.ports import Records, StateUnavailable

ALL_SCOPES = "*"
SCOPES = {
    "*": "everything that the user may do",
    "actors:read": "see Actors, versions and builds",
    "actors:write": "create, change, build and delete Actors",
    "actors:run": "start runs and call standby hosts",
    "runs:read": "see runs and their logs",
    "runs:write": "change and abort runs",
    "storages:read": "read key-value stores, datasets and request queues",
    "storages:write": "create, change and delete key-value stores, datasets and request queues",
    "run": "a run's own token: its own run and storages, and starting Actors",
}
RUN_TOKEN_SCOPES = frozenset({"run", "actors:run"})

# A status message is sent in the moment before a process exits, and can arrive after that was recorded.
LATE_CALL_SECS = 30.0

# Some 350 bytes each.
_CACHE_ENTRIES = 10_000
_MAX_SCOPES = 1024
_UNKNOWN_SECS = 5.0
# While the records can't be asked, what they last said is believed for so long; then nobody is let in by it any more.
OUTAGE_SECS = 900.0
# How long they are waited for where there is something to go by without them.
_PATIENCE_SECS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls: a user through one token. ``run_id`` is set for the token of a run."""

    user_id: str
    username: str
    is_admin: bool
    token_id: str
    scopes: frozenset[str]
    run_id: str | None = None

    def may(self, scope: str) -> bool:
        """Whether the token covers *scope*; writing implies reading."""
        if ALL_SCOPES in self.scopes or scope in self.scopes:
            return True
        kind, _, verb = scope.partition(":")
        return verb == "read" and f"{kind}:write" in self.scopes

    def require(self, scope: str) -> None:
        """Raise InsufficientPermissions unless ``may(scope)``."""
        if not self.may(scope):
            raise InsufficientPermissions(
                f"This token lacks the scope '{scope}' ({SCOPES[scope]}): use another one, "
                f"or make one with 'greenroom token create --scope {scope}'."
            )


class Remembered(NamedTuple):
    """Who holds a token that was verified, and until when (on the authenticator's clock) that is believed."""

    principal: Principal
    until: float


class Known(NamedTuple):
    """Whether a token is one of Greenroom's, and until when (on the authenticator's clock) that is believed."""

    is_known: bool
    until: float


# Who calls without a token, where a signature may stand for one. It may do nothing by itself.
ANONYMOUS = Principal(user_id="", username="", is_admin=False, token_id="", scopes=frozenset())


def run_token(box: SecretBox, run_id: str) -> str:
    """The token of one run: derived, so that whichever process starts the run can make it and nothing stores it."""
    return "greenroom_run_" + box.derive("run-token", run_id)


def events_secret(box: SecretBox, run_id: str) -> str:
    """The secret in the events-socket URL of one run."""
    return box.derive("events", run_id)


def url_signing_secret(box: SecretBox, storage_id: str) -> str:
    """What the addresses of one storage are signed with (``gateway.core.signed_urls``), by us and by its owner."""
    return box.derive("url-signing", storage_id)


class _Asked(NamedTuple):
    """What the records are asked at the moment, since which epoch, and what will come of it."""

    epoch: int
    answer: asyncio.Future[Principal]


class Authenticator:
    """
    Verifies tokens against records; a good one is believed for *cache_secs* without asking again.

    Records that can't be asked, or don't answer within a second, change nothing for who was verified less than
    ``OUTAGE_SECS`` ago, unless the token has expired or is known to have changed; with *cache_secs* 0 they are always
    asked. A hit costs one hash and one dict look-up. *now* is UTC, *clock* is monotonic.
    """

    def __init__(
        self, records: Records, *, cache_secs: float, now: Callable[[], datetime], clock: Callable[[], float]
    ) -> None:
        self._records = records
        self._cache_secs = cache_secs
        self._now = now
        self._clock = clock
        # By digest, the oldest first.
        self._cache: dict[bytes, tuple[float, datetime | None, Principal]] = {}
        self._unknown: dict[bytes, float] = {}
        # When those were asked about that are believed although the records could not be asked since.
        self._in_doubt: dict[bytes, float] = {}
        self._asked: dict[bytes, _Asked] = {}
        self._scopes: dict[frozenset[str], frozenset[str]] = {}
        self.epoch = 0
        """Counts the times at which something was forgotten: what was believed in another epoch is asked for anew."""

    def cached(self, token: str) -> Remembered | None:
        """Who holds *token*, without asking the records; None where these have to be asked."""
        return self._cached(token_digest(token))

    def _cached(self, digest: bytes) -> Remembered | None:
        cached = self._cache.get(digest)
        if cached is None:
            return None
        until, expires_at, principal = cached
        if expires_at is not None:
            until = min(until, self._clock() + (expires_at - self._now()).total_seconds())
        return Remembered(principal, until) if self._clock() < until else None

    async def principal(self, token: str) -> Principal:
        """
        Who holds *token*. Raises TokenNotFound when it is unknown, expired or of a run that has ended, and
        StateUnavailable when the records can't be asked and there is nothing to go by without them.
        """
        digest = token_digest(token)
        while (cached := self._cached(digest)) is None:
            asked = self._asked.get(digest)
            if asked is None or asked.epoch != self.epoch or not self._cache_secs:
                return await self._ask_for_all(digest)
            await asyncio.wait([asked.answer])
            if not asked.answer.cancelled():  # else who asked has left
                return asked.answer.result()
        return cached.principal

    async def _ask_for_all(self, digest: bytes) -> Principal:
        """
        Ask the records, and tell whoever wants to know the same meanwhile.

        All callers of one token find at the same time that it has to be asked about again.
        """
        asked = self._asked[digest] = _Asked(self.epoch, asyncio.get_running_loop().create_future())
        try:
            principal = await self._ask(digest)
        except (TokenNotFound, StateUnavailable) as error:
            asked.answer.set_exception(error)
            asked.answer.exception()  # there may be nobody else who wants to know
            raise
        except BaseException:
            asked.answer.cancel()
            raise
        else:
            asked.answer.set_result(principal)
            return principal
        finally:
            if self._asked.get(digest) is asked:
                del self._asked[digest]

    async def _ask(self, digest: bytes) -> Principal:
        epoch = self.epoch
        try:
            async with asyncio.timeout(None if self._former(digest) is None else _PATIENCE_SECS):
                found = await self._records.token_by_hash(digest.hex())
                if found is None or self._is_past(found.expires_at):
                    raise TokenNotFound
                principal = await self._principal_of(found)
        except TokenNotFound:
            self._cache.pop(digest, None)
            raise
        except (StateUnavailable, TimeoutError) as error:
            # Asked for again: it may have been forgotten in the meantime.
            former = self._former(digest)
            if former is None:
                raise error if isinstance(error, StateUnavailable) else StateUnavailable("Records: no answer") from None
            return self._believed_on(digest, *former)
        if epoch != self.epoch:
            return principal  # tokens have changed while this one was read: good for this call, not to be remembered
        self._in_doubt.pop(digest, None)
        # At the end, the oldest being those that go.
        self._cache.pop(digest, None)
        self._cache[digest] = (self._clock() + self._cache_secs, found.expires_at, principal)
        _drop_surplus(self._cache)
        return principal

    def _former(self, digest: bytes) -> tuple[float, datetime | None, Principal] | None:
        """When a token was verified, its expiry and its holder, where that may still be gone by."""
        if digest not in self._cache or not self._cache_secs:
            return None
        until, expires_at, principal = self._cache[digest]
        verified_at = self._in_doubt.get(digest, until - self._cache_secs)
        if self._is_past(expires_at) or self._clock() >= verified_at + OUTAGE_SECS:
            return None
        return verified_at, expires_at, principal

    def _believed_on(
        self, digest: bytes, verified_at: float, expires_at: datetime | None, principal: Principal
    ) -> Principal:
        """Nobody asks about it again for a moment: who waits for records in vain waits for each request."""
        self._doubt(digest, verified_at)
        self._cache[digest] = (self._clock() + self._cache_secs, expires_at, principal)
        return principal

    async def just_ended(self, token: str, run_id: str, box: SecretBox) -> Principal | None:
        """Who *token* was, if it was that of *run_id* and the run ended less than ``LATE_CALL_SECS`` ago."""
        if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), run_token(box, run_id).encode()):
            return None
        run = await self._records.run(run_id)
        if run is None or run.finished_at is None or (self._now() - run.finished_at).total_seconds() > LATE_CALL_SECS:
            return None
        user = await self._records.user(run.user_id)
        if user is None:
            return None
        return Principal(
            user_id=user.id,
            username=user.username,
            is_admin=False,
            token_id=run_id,
            scopes=RUN_TOKEN_SCOPES,
            run_id=run_id,
        )

    def cached_as_known(self, token: str) -> Known | None:
        """What ``is_known`` says, without asking the records; None where these have to be asked."""
        digest = token_digest(token)
        until = self._unknown.get(digest, 0.0)
        if until > self._clock():
            return Known(False, until)
        cached = self._cached(digest)
        return None if cached is None else Known(True, cached.until)

    async def is_known(self, token: str) -> bool:
        """
        Whether *token* is one of Greenroom's, where nobody has to have one (public hosts).

        What is not, most likely the Actor's own scheme, is remembered for a few seconds. Raises StateUnavailable.
        """
        digest = token_digest(token)
        if self._unknown.get(digest, 0.0) > self._clock():
            return False
        doubted = self._unknown.get(digest)
        try:
            async with asyncio.timeout(None if doubted is None else _PATIENCE_SECS):
                await self.principal(token)
        except TokenNotFound:
            self._unknown[digest] = self._clock() + _UNKNOWN_SECS
            _drop_surplus(self._unknown)
            self._in_doubt.pop(digest, None)
            return False
        except (StateUnavailable, TimeoutError) as error:
            # It was none of ours a while ago, and nobody can have made it one without the records.
            if doubted is None or self._clock() >= self._in_doubt.get(digest, doubted) + OUTAGE_SECS:
                raise error if isinstance(error, StateUnavailable) else StateUnavailable("Records: no answer") from None
            self._doubt(digest, doubted)
            self._unknown[digest] = self._clock() + _UNKNOWN_SECS
            return False
        return True

    def forget_all(self) -> None:
        """Tokens have changed: believe nothing that was cached or is being read."""
        self.epoch += 1
        self._cache.clear()
        self._in_doubt.clear()
        self._unknown.clear()

    def doubt_all(self) -> None:
        """
        Changes of tokens may have been missed: all are asked about again before they are believed.

        Nobody is forgotten: where the records can't be asked at this very moment, they are gone by as in any outage.
        """
        self.epoch += 1
        now = self._clock()
        self._cache = {
            digest: (min(until, now), expires_at, principal)
            for digest, (until, expires_at, principal) in self._cache.items()
        }
        self._unknown = {digest: min(until, now) for digest, until in self._unknown.items()}

    def forget(self, token: str) -> None:
        """This one has changed: it is not believed any more; of the others the records need not be asked again."""
        self.epoch += 1
        digest = token_digest(token)
        self._cache.pop(digest, None)
        self._in_doubt.pop(digest, None)
        self._unknown.pop(digest, None)

    def _doubt(self, digest: bytes, since: float) -> None:
        self._in_doubt.setdefault(digest, since)
        _drop_surplus(self._in_doubt)

    def _is_past(self, expires_at: datetime | None) -> bool:
        return expires_at is not None and expires_at <= self._now()

    async def _principal_of(self, token: Token) -> Principal:
        user = await self._records.user(token.user_id)
        if user is None:
            raise TokenNotFound
        if token.run_id is not None:
            run = await self._records.run(token.run_id)
            if run is None or run.status.is_terminal:
                raise TokenNotFound
        # Most tokens are of few users and have the same few scopes: what is equal is kept once.
        if len(self._scopes) >= _MAX_SCOPES:
            self._scopes.clear()
        return Principal(
            user_id=intern(user.id),
            username=intern(user.username),
            is_admin=user.is_admin,
            token_id=token.id,
            scopes=self._scopes.setdefault(token.scopes, token.scopes),
            run_id=token.run_id,
        )


def _drop_surplus(cache: dict[bytes, Any]) -> None:
    """The oldest entry, where there is one too many. No OrderedDict: it takes twice the memory."""
    if len(cache) > _CACHE_ENTRIES:
        del cache[next(iter(cache))]
