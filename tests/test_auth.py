"""Whose token this is and what it may do, against real records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import OUTAGE_SECS, RUN_TOKEN_SCOPES, SCOPES, Authenticator, Principal, events_secret, run_token
from gateway.core.errors import InsufficientPermissions, TokenNotFound
from gateway.core.ids import token_hash
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin, Run, RunOptions, Token, User
from gateway.new_run import bare_run, store_run
from gateway.secret_box import SecretBox
from gateway.state.ports import Records, StateUnavailable
from gateway.state.records import open_records

AT = datetime(2026, 1, 2, tzinfo=UTC)
BOX = SecretBox(b"key")
ANN = User(id="AnnId000000000001", username="ann", is_admin=False, created_at=AT)
TOKEN = Token(
    id="TokenId0000000001",
    user_id=ANN.id,
    name="laptop",
    token_hash=token_hash("good"),
    scopes=frozenset({"*"}),
    created_at=AT,
)


@dataclass
class Bench:
    """An authenticator whose clocks move when told."""

    records: Records
    clock: float = 1000.0
    now: datetime = AT
    auth: Authenticator = field(init=False)

    def __post_init__(self) -> None:
        self.auth = self.authenticator(cache_secs=5)

    def authenticator(self, cache_secs: float) -> Authenticator:
        return Authenticator(self.records, cache_secs=cache_secs, now=lambda: self.now, clock=lambda: self.clock)

    async def is_good(self, token: str = "good") -> bool:
        try:
            await self.auth.principal(token)
        except TokenNotFound:
            return False
        return True


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_records(f"sqlite+aiosqlite:///{tmp_path}/records.sqlite3") as records:
        await records.add_user(ANN)
        await records.add_token(TOKEN)
        yield Bench(records)


async def stored_run(records: Records) -> Run:
    build = Build(
        id="BuildId0000000001",
        actor_id="ActorId0000000001",
        user_id=ANN.id,
        version_number="0.1",
        build_number="0.1.1",
        status=RunStatus.SUCCEEDED,
        started_at=AT,
        origin=Origin.CLI,
    )
    run = bare_run(
        build=build, user_id=ANN.id, origin=Origin.API, options=RunOptions(), now=AT, random_bytes=bytes(range(80))
    )
    await store_run(records, run, BOX, "TokenId0000000002")
    return run


async def test_a_good_token_says_who_calls(bench: Bench) -> None:
    """User, rights and the token's own id; the same from the cache."""
    expected = Principal(
        user_id=ANN.id, username="ann", is_admin=False, token_id=TOKEN.id, scopes=frozenset({"*"}), run_id=None
    )
    assert await bench.auth.principal("good") == expected
    assert await bench.auth.principal("good") == expected


@pytest.mark.parametrize("token", ["", "bad", "Good", "good ", token_hash("good"), "\udcff"], ids=repr)
async def test_any_other_token_is_not_found(bench: Bench, token: str) -> None:
    """Neither another letter case nor the stored hash itself, nor bytes that are no text."""
    with pytest.raises(TokenNotFound):
        await bench.auth.principal(token)


async def test_a_revoked_token_is_believed_for_the_cache_time_at_most(bench: Bench) -> None:
    """Then records are asked again; at once when the tokens are known to have changed."""
    assert await bench.is_good()
    await bench.records.delete_token(TOKEN.id)
    bench.clock += 4.9
    assert await bench.is_good()
    bench.clock += 0.1
    assert not await bench.is_good()
    await bench.records.add_token(TOKEN)
    assert await bench.is_good()
    await bench.records.delete_token(TOKEN.id)
    bench.auth.forget_all()
    assert not await bench.is_good()


async def test_without_a_cache_records_are_always_asked(bench: Bench) -> None:
    """``token_cache_secs`` 0."""
    bench.auth = bench.authenticator(cache_secs=0)
    assert await bench.is_good()
    await bench.records.delete_token(TOKEN.id)
    assert not await bench.is_good()


@dataclass
class Gone:
    """Records that can be gone (they refuse) or silent (they never answer)."""

    records: Records
    is_gone: bool = False
    is_silent: bool = False
    asked: int = 0

    def __getattr__(self, name: str) -> Any:
        async def ask(*arguments: Any) -> Any:
            self.asked += 1
            if self.is_gone:
                raise StateUnavailable("Records: gone")
            if self.is_silent:
                await asyncio.Event().wait()
            return await getattr(self.records, name)(*arguments)

        return ask


@pytest.fixture
def gone(bench: Bench) -> Gone:
    records = Gone(bench.records)
    bench.auth = Authenticator(records, cache_secs=5, now=lambda: bench.now, clock=lambda: bench.clock)  # type: ignore[arg-type]
    return records


async def test_who_was_verified_is_believed_while_the_records_are_gone(bench: Bench, gone: Gone) -> None:
    """For a bounded time, and they are asked now and then, not for each request."""
    assert await bench.is_good()
    gone.is_gone = True
    with pytest.raises(StateUnavailable):
        await bench.auth.principal("a stranger")
    asked = gone.asked
    for _ in range(10):
        bench.clock += 1
        assert await bench.is_good()
    assert gone.asked - asked <= 3
    bench.clock += OUTAGE_SECS - 11
    assert await bench.is_good()
    bench.clock += 6
    with pytest.raises(StateUnavailable):
        await bench.auth.principal("good")


async def test_an_outage_ends_with_the_first_answer(bench: Bench, gone: Gone) -> None:
    """Whoever was revoked meanwhile is found out then, and the next outage has its whole time."""
    assert await bench.is_good()
    gone.is_gone = True
    bench.clock += OUTAGE_SECS - 1
    assert await bench.is_good()
    gone.is_gone = False
    bench.clock += 5
    assert await bench.is_good()
    gone.is_gone = True
    bench.clock += OUTAGE_SECS - 1
    assert await bench.is_good()
    gone.is_gone = False
    await bench.records.delete_token(TOKEN.id)
    bench.clock += 5
    assert not await bench.is_good()
    gone.is_gone = True
    with pytest.raises(StateUnavailable):
        await bench.auth.principal("good")


async def test_silent_records_are_waited_for_a_second_where_there_is_something_to_go_by(
    bench: Bench, gone: Gone
) -> None:
    """A partition looks so: nobody says that the records are gone."""
    assert await bench.is_good()
    assert not await bench.auth.is_known("the Actor's own")
    gone.is_silent = True
    bench.clock += 5
    began = time.monotonic()
    assert await bench.is_good()
    assert not await bench.auth.is_known("the Actor's own")
    assert time.monotonic() - began < 4


async def test_neither_expired_nor_forgotten_tokens_outlive_in_an_outage(bench: Bench, gone: Gone) -> None:
    """What is known to be over stays over."""
    short = replace(TOKEN, id="TokenId0000000007", token_hash=token_hash("short"), expires_at=AT + timedelta(seconds=9))
    await bench.records.add_token(short)
    assert await bench.is_good()
    assert await bench.is_good("short")
    gone.is_gone = True
    bench.clock, bench.now = bench.clock + 8, AT + timedelta(seconds=8)
    assert await bench.is_good("short")
    bench.clock, bench.now = bench.clock + 1, AT + timedelta(seconds=9)
    with pytest.raises(StateUnavailable):
        await bench.auth.principal("short")
    bench.auth.forget("good")
    with pytest.raises(StateUnavailable):
        await bench.auth.principal("good")


async def test_what_may_have_been_missed_is_asked_about(bench: Bench, gone: Gone) -> None:
    """At once where the records answer; an outage that comes just then is one like any other."""
    assert await bench.is_good()
    assert not await bench.auth.is_known("the Actor's own")
    epoch = bench.auth.epoch
    gone.is_gone = True
    bench.auth.doubt_all()
    assert bench.auth.epoch > epoch
    assert bench.auth.cached("good") is None
    assert await bench.is_good()
    assert not await bench.auth.is_known("the Actor's own")
    gone.is_gone = False
    await bench.records.delete_token(TOKEN.id)
    bench.auth.doubt_all()
    assert not await bench.is_good()


async def test_without_a_cache_nobody_is_believed_in_an_outage(bench: Bench, gone: Gone) -> None:
    """``token_cache_secs`` 0 means that the records are asked, whatever it costs."""
    bench.auth = Authenticator(gone, cache_secs=0, now=lambda: bench.now, clock=lambda: bench.clock)  # type: ignore[arg-type]
    assert await bench.is_good()
    gone.is_gone = True
    with pytest.raises(StateUnavailable):
        await bench.auth.principal("good")


async def test_strange_tokens_stay_strange_in_an_outage(bench: Bench, gone: Gone) -> None:
    """Public Actors with a scheme of their own serve on; a token never seen before may be Greenroom's, and waits."""
    assert not await bench.auth.is_known("the Actor's own")
    gone.is_gone = True
    bench.clock += 6
    assert not await bench.auth.is_known("the Actor's own")
    with pytest.raises(StateUnavailable):
        await bench.auth.is_known("never seen")
    bench.clock += OUTAGE_SECS
    with pytest.raises(StateUnavailable):
        await bench.auth.is_known("the Actor's own")


async def test_a_token_expires_on_time(bench: Bench) -> None:
    """Also out of the cache."""
    await bench.records.add_token(
        replace(TOKEN, id="TokenId0000000003", token_hash=token_hash("short"), expires_at=AT + timedelta(seconds=2))
    )
    assert await bench.is_good("short")
    bench.now = AT + timedelta(seconds=1.999)
    assert await bench.is_good("short")
    bench.now = AT + timedelta(seconds=2)
    assert not await bench.is_good("short")


async def test_a_runs_token_dies_with_it(bench: Bench) -> None:
    """It acts for the run's owner, within its own scopes, while the run lives."""
    run = await stored_run(bench.records)
    principal = await bench.auth.principal(run_token(BOX, run.id))
    assert (principal.user_id, principal.run_id, principal.scopes) == (ANN.id, run.id, RUN_TOKEN_SCOPES)
    await bench.records.replace_run(replace(run, status=RunStatus.ABORTING))
    bench.auth.forget_all()
    assert await bench.is_good(run_token(BOX, run.id))
    await bench.records.replace_run(replace(run, status=RunStatus.ABORTED, version=2))
    bench.auth.forget(run_token(BOX, run.id))
    assert not await bench.is_good(run_token(BOX, run.id))


async def test_what_is_forgotten_of_one_token_leaves_the_others(bench: Bench) -> None:
    """Runs end all the time: the records are not asked for everybody's token again each time."""
    assert await bench.is_good()
    epoch = bench.auth.epoch
    await bench.records.delete_token(TOKEN.id)
    bench.auth.forget("another")
    assert bench.auth.epoch > epoch
    assert bench.auth.cached("good") is not None
    bench.auth.forget("good")
    assert not await bench.is_good()


async def test_where_nobody_needs_a_token_strange_ones_are_remembered(bench: Bench) -> None:
    """For five seconds, or until tokens change: an Actor's own scheme costs no look-up per request."""
    assert await bench.auth.is_known("good")
    assert not await bench.auth.is_known("later")
    await bench.records.add_token(replace(TOKEN, id="TokenId0000000005", token_hash=token_hash("later")))
    assert not await bench.auth.is_known("later")
    bench.clock += 5
    assert await bench.auth.is_known("later")
    assert not await bench.auth.is_known("much later")
    await bench.records.add_token(replace(TOKEN, id="TokenId0000000006", token_hash=token_hash("much later")))
    bench.auth.forget_all()
    assert await bench.auth.is_known("much later")


async def test_the_caches_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries tokens at random fills no memory, and pushes nobody out of the cache of good ones."""
    monkeypatch.setattr("gateway.auth._CACHE_ENTRIES", 10)
    assert await bench.is_good()
    for number in range(30):
        assert not await bench.auth.is_known(f"guess {number}")
    assert len(bench.auth._unknown) == 10
    assert len(bench.auth._cache) == 1


async def test_the_oldest_is_forgotten_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is full goes on taking in tokens, each in place of the one that was verified longest ago."""
    monkeypatch.setattr("gateway.auth._CACHE_ENTRIES", 2)
    names = ["good", "second", "third"]
    for number, token in enumerate(names[1:]):
        await bench.records.add_token(replace(TOKEN, id=f"TokenId000000001{number}", token_hash=token_hash(token)))
    for token in names:
        assert await bench.is_good(token)
    assert [bench.auth.cached(token) is not None for token in names] == [False, True, True]
    assert await bench.is_good("good")
    assert [bench.auth.cached(token) is not None for token in names] == [True, False, True]


async def test_what_tokens_have_in_common_is_kept_once(bench: Bench) -> None:
    """Ten thousand remembered tokens are mostly those of a few users, with the same scopes."""
    await bench.records.add_token(replace(TOKEN, id="TokenId0000000007", token_hash=token_hash("second")))
    first, second = await bench.auth.principal("good"), await bench.auth.principal("second")
    assert first.token_id != second.token_id
    assert all(getattr(first, name) is getattr(second, name) for name in ("user_id", "username", "scopes"))


@pytest.mark.parametrize(
    ("scopes", "scope", "expected"),
    [
        pytest.param({"*"}, "runs:write", True, id="everything"),
        pytest.param({"runs:write"}, "runs:write", True, id="the very scope"),
        pytest.param({"runs:write"}, "runs:read", True, id="writing implies reading"),
        pytest.param({"runs:read"}, "runs:write", False, id="reading does not imply writing"),
        pytest.param({"actors:write"}, "runs:read", False, id="of another kind"),
        pytest.param({"actors:write"}, "actors:run", False, id="writing does not imply running"),
        pytest.param(RUN_TOKEN_SCOPES, "actors:run", True, id="a run may start Actors"),
        pytest.param(RUN_TOKEN_SCOPES, "actors:read", False, id="but not look around"),
        pytest.param(set(), "actors:read", False, id="nothing"),
    ],
)
def test_scopes(scopes: set[str], scope: str, expected: bool) -> None:
    """What a token covers; the refusal names what is missing and how to get it."""
    principal = Principal(
        user_id="u", username="ann", is_admin=False, token_id="t", scopes=frozenset(scopes), run_id=None
    )
    assert principal.may(scope) is expected
    if expected:
        principal.require(scope)
    else:
        with pytest.raises(InsufficientPermissions, match=f"--scope {scope}"):
            principal.require(scope)


def test_every_scope_can_be_required() -> None:
    """Each has words for its refusal."""
    principal = Principal(user_id="u", username="a", is_admin=False, token_id="t", scopes=frozenset(), run_id=None)
    for scope in SCOPES:
        with pytest.raises(InsufficientPermissions):
            principal.require(scope)


def test_a_runs_secrets_are_its_own() -> None:
    """Derived from the key: the same for whoever asks, another for each run, and one tells nothing of the other."""
    secrets = {run_token(BOX, "a"), run_token(BOX, "b"), events_secret(BOX, "a"), events_secret(BOX, "b")}
    assert len(secrets) == 4
    assert run_token(SecretBox(b"key"), "a") == run_token(BOX, "a")
    assert run_token(BOX, "a").startswith("greenroom_run_")
    assert events_secret(BOX, "a") not in run_token(BOX, "a")


# Many who ask at once


class Slow:
    """Records that answer when they are let; they note who asked."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.asked = 0
        self.may_answer = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    async def token_by_hash(self, digest: str) -> Token | None:
        self.asked += 1
        found = await self._records.token_by_hash(digest)
        await self.may_answer.wait()
        return found


@pytest.fixture
def slow(bench: Bench) -> Slow:
    records = Slow(bench.records)
    bench.records = records  # type: ignore[assignment]
    bench.auth = bench.authenticator(cache_secs=5)
    return records


async def _let_all_ask() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("token", ["good", "bad"])
async def test_the_records_are_asked_once_for_all(bench: Bench, slow: Slow, token: str) -> None:
    """Whatever they say, each of them hears it."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        tasks = [group.create_task(bench.is_good(token)) for _ in range(50)]
        await _let_all_ask()
        slow.may_answer.set()
    assert [task.result() for task in tasks] == [token == "good"] * 50
    assert slow.asked == 1


async def test_who_asked_may_leave(bench: Bench, slow: Slow) -> None:
    """Then another one asks for those who are left."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        tasks = [group.create_task(bench.is_good()) for _ in range(3)]
        await _let_all_ask()
        tasks[0].cancel()
        tasks[1].cancel()
        await _let_all_ask()
        late = group.create_task(bench.is_good())
        await _let_all_ask()
        slow.may_answer.set()
    assert tasks[2].result()
    assert late.result()
    assert slow.asked == 2


async def test_nobody_hears_what_was_asked_before_a_change(bench: Bench, slow: Slow) -> None:
    """A token that is revoked amid a look: whoever comes after that asks anew."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        early = group.create_task(bench.is_good())
        await _let_all_ask()
        assert slow.asked == 1
        await slow.delete_token(TOKEN.id)
        bench.auth.forget("good")
        late = [group.create_task(bench.is_good()) for _ in range(2)]
        await _let_all_ask()
        slow.may_answer.set()
    assert not any(task.result() for task in late)
    assert slow.asked == 2
    assert early.done()
    assert not await bench.is_good()


async def test_where_nothing_is_remembered_each_one_asks(bench: Bench, slow: Slow) -> None:
    """What was read for somebody else began before he came."""
    bench.auth = bench.authenticator(cache_secs=0)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        tasks = [group.create_task(bench.is_good()) for _ in range(3)]
        await _let_all_ask()
        slow.may_answer.set()
    assert all(task.result() for task in tasks)
    assert slow.asked == 3
