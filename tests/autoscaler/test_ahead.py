"""What is made ahead for a pool: by one at a time, only where the launcher can do that, and at no one else's cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from autoscaler import ahead as ahead_module
from autoscaler.ahead import Ahead
from autoscaler.launchers.base import LaunchSpec
from gateway.core.errors import LaunchError
from gateway.core.standby import Generation, PoolKey

GENERATION = Generation(build_id="build", memory_mbytes=128)


RUN = cast(Any, SimpleNamespace(id="run"))
POOL = PoolKey(target_id="actor", user_id="user")
KNOWN = cast(Any, ())


@dataclass
class Able:
    """A launcher as far as this is concerned; ``away``: what each of its calls raises."""

    away: LaunchError | None = None
    forgotten: list[str] = field(default_factory=list)

    async def make_ahead(self, spec: LaunchSpec) -> None:
        if self.away is not None:
            raise self.away

    async def forget(self, run_id: str) -> None:
        if self.away is not None:
            raise self.away
        self.forgotten.append(run_id)


class Prepared:
    """A launch for which everything is there."""

    def __init__(self, **_: object) -> None: ...

    async def prepare(self) -> tuple[None, None]:
        return None, None


@pytest.fixture(autouse=True)
def _is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead_module, "Launch", Prepared)


def ahead_of(launcher: object, clock: Callable[[], float] = lambda: 0.0) -> Ahead:
    return Ahead(tools=cast(Any, None), launcher=cast(Any, launcher), clock=clock)


@pytest.mark.parametrize(
    ("launcher", "claims"),
    [
        pytest.param(Able(), [True, False, False], id="makes ahead: one claim, and nobody else's while it lasts"),
        pytest.param(object(), [False, False, False], id="makes nothing ahead"),
    ],
)
def test_claims(launcher: Any, claims: list[bool]) -> None:
    """Two looks of the autoscaler in a row must not make two: the second would be nobody's."""
    ahead = ahead_of(launcher)
    assert [ahead.claim(POOL, GENERATION) for _ in claims] == claims


async def test_a_launcher_that_is_away_ends_nothing_else() -> None:
    """What is made ahead is made beside all runs: its failure, and that of what tidies up after it, is only logged."""
    launcher = Able(away=LaunchError("The engine does not answer."))
    ahead = ahead_of(launcher)
    assert ahead.claim(POOL, GENERATION)
    await ahead.make(POOL, RUN, GENERATION, KNOWN)
    assert ahead.take(POOL, GENERATION) is None
    launcher.away = None
    assert ahead.claim(POOL, GENERATION)
    await ahead.make(POOL, RUN, GENERATION, KNOWN)
    launcher.away = LaunchError("The engine does not answer.")
    await ahead.drop_all()
    assert not ahead.claim(POOL, GENERATION)


@pytest.mark.parametrize(
    ("generation", "age_secs", "is_taken"),
    [
        pytest.param(GENERATION, 3599, True, id="fresh"),
        pytest.param(GENERATION, 3600, False, id="too old: its start would lie an hour back"),
        pytest.param(Generation(build_id="newer", memory_mbytes=128), 0, False, id="of an old build"),
    ],
)
async def test_what_is_taken(generation: Generation, age_secs: float, is_taken: bool) -> None:
    """Only what would also have been made now."""
    now = 0.0
    ahead = ahead_of(Able(), lambda: now)
    assert ahead.claim(POOL, GENERATION)
    await ahead.make(POOL, RUN, GENERATION, KNOWN)
    now = age_secs
    assert ahead.take(POOL, generation) is (RUN if is_taken else None)


async def test_what_is_not_wanted_any_more() -> None:
    """A pool that keeps no runs warm has none ready either: its secrets would lie in a container that nobody needs."""
    launcher = Able()
    ahead = ahead_of(launcher)
    assert ahead.claim(POOL, GENERATION)
    await ahead.make(POOL, RUN, GENERATION, KNOWN)
    assert ahead.unwanted(lambda pool: pool == POOL) == []
    (pool,) = ahead.unwanted(lambda _: False)
    await ahead.drop(pool)
    assert launcher.forgotten == ["run"]
    assert ahead.take(POOL, GENERATION) is None
