"""What is made ahead for a pool: by one at a time, only where the launcher can do that, and at no one else's cost."""

from __future__ import annotations

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


def ahead_of(launcher: object) -> Ahead:
    return Ahead(tools=cast(Any, None), launcher=cast(Any, launcher))


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
