"""Who calls, where only the records could tell and can't be asked."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.auth import Authenticator
from gateway.core.errors import RecordsNotAsked
from gateway.core.standby import StandbyConfig, StandbyTarget
from gateway.proxy.callers import caller_of
from gateway.state.ports import StateUnavailable


class GoneRecords:
    """They refuse all work."""

    async def token_by_hash(self, hashed: str) -> None:
        raise StateUnavailable("Records: connection refused")


@pytest.mark.parametrize(
    "public", [pytest.param(False, id="who has to have a token"), pytest.param(True, id="who need not have one")]
)
async def test_a_strange_token_is_refused_with_a_reason(public):
    """Neither an internal error nor a 401 for somebody who may have every right; no token goes on unseen."""
    auth = Authenticator(GoneRecords(), cache_secs=5, now=lambda: datetime.now(UTC), clock=lambda: 0.0)  # type: ignore[arg-type]
    target = StandbyTarget(
        actor_id="ActorId0000000001",
        owner_id="AnnId000000000001",
        owner_name="ann",
        is_public_actor=False,
        config=StandbyConfig(public=public),
        generation=None,
    )
    with pytest.raises(RecordsNotAsked) as caught:
        await caller_of(["a token"], target, auth)
    assert (caught.value.http_status, caught.value.error_type) == (503, "service-unavailable")
    assert caught.value.retry_after_secs
