"""What is made ahead for a pool: by one at a time, and only where the launcher can do that."""

from __future__ import annotations

from typing import Any, cast

import pytest

from autoscaler.ahead import Ahead
from autoscaler.launchers.base import LaunchSpec
from gateway.core.standby import Generation, PoolKey

GENERATION = Generation(build_id="build", memory_mbytes=128)


class Able:
    """A launcher as far as this is concerned."""

    async def make_ahead(self, spec: LaunchSpec) -> None: ...


@pytest.mark.parametrize(
    ("launcher", "claims"),
    [
        pytest.param(Able(), [True, False, False], id="makes ahead: one claim, and nobody else's while it lasts"),
        pytest.param(object(), [False, False, False], id="makes nothing ahead"),
    ],
)
def test_claims(launcher: Any, claims: list[bool]) -> None:
    """Two looks of the autoscaler in a row must not make two: the second would be nobody's."""
    ahead = Ahead(tools=cast(Any, None), launcher=launcher)
    pool = cast(PoolKey, "the pool")
    assert [ahead.claim(pool, GENERATION) for _ in claims] == claims
