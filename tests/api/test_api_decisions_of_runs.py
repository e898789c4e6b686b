"""What a run is started with, and what callers may change about it, as tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.api.errors import InvalidValue
from gateway.api.fields import Fields, Query
from gateway.api.run_changes import run_update
from gateway.api.run_options import default_memory, nearest_step, run_options
from gateway.core.errors import InvalidRequest
from gateway.core.lifecycle import RunStatus
from gateway.core.model import AbortWish, Origin, Run, RunDefaults, RunOptions

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
HARD = AbortWish(gracefully=False, requested_at=NOW)
SOFT = AbortWish(gracefully=True, requested_at=NOW)
RUN = Run(
    id="r",
    actor_id="a",
    user_id="u",
    build_id="b",
    build_number="0.1.1",
    status=RunStatus.RUNNING,
    started_at=NOW,
    origin=Origin.API,
    options=RunOptions(),
    live_view_label="l",
    default_key_value_store_id="k",
    default_dataset_id="d",
    default_request_queue_id="q",
)


@pytest.mark.parametrize(
    ("mbytes", "step"),
    [(300, 256), (900, 1024), (3600, 4096), (384, 512), (1, 128), (10**9, 32768), (128, 128)],
)
def test_nearest_step(mbytes: int, step: int) -> None:
    """Memory is rounded to the nearest power of two within the platform's limits."""
    assert nearest_step(mbytes) == step


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        pytest.param({}, 1024, id="the Actor's own default"),
        pytest.param({"defaultMemoryMbytes": 300}, 256, id="the build's, rounded"),
        pytest.param({"defaultMemoryMbytes": "get(input, 'x') * 1024"}, 1024, id="an expression: the Actor's default"),
        pytest.param({"defaultMemoryMbytes": True}, 1024, id="no number"),
        pytest.param({"minMemoryMbytes": 2048}, 2048, id="raised to the least"),
        pytest.param({"maxMemoryMbytes": 512}, 512, id="lowered to the most"),
        pytest.param({"maxMemoryMbytes": 600}, 512, id="the most that is a step"),
        pytest.param({"minMemoryMbytes": 600, "maxMemoryMbytes": 700}, 1024, id="no step between the two"),
    ],
)
def test_default_memory(definition: dict[str, Any], expected: int) -> None:
    """Without an explicit wish, the build decides before the Actor, within the build's bounds."""
    assert default_memory(RunDefaults(memory_mbytes=1024), definition) == expected


@pytest.mark.parametrize("memory", ["0", "127", "129", "1000", "65536"])
def test_explicit_memory_must_be_a_step(memory: str) -> None:
    """A start that asks for a memory that does not exist is told so."""
    with pytest.raises(InvalidValue, match="memory"):
        run_options(Query({"memory": memory}), "latest", RunDefaults(), {})


def test_options_of_the_call_win() -> None:
    """What the call gives stands over the Actor's defaults; disk is twice the memory."""
    query = {"memory": "2048", "timeout": "0", "maxItems": "5", "restartOnError": "1", "maxTotalChargeUsd": "1.5"}
    assert run_options(Query(query), "0.1.2", RunDefaults(timeout_secs=60, max_items=9), {}) == RunOptions(
        build="0.1.2",
        timeout_secs=0,
        memory_mbytes=2048,
        disk_mbytes=4096,
        max_items=5,
        max_total_charge_usd=1.5,
        restart_on_error=True,
    )


def test_defaults_hold_where_the_call_is_silent() -> None:
    """A bare start has the Actor's options."""
    defaults = RunDefaults(timeout_secs=60, memory_mbytes=512, restart_on_error=True, max_items=9)
    assert run_options(Query({}), "latest", defaults, {}) == RunOptions(
        timeout_secs=60, memory_mbytes=512, disk_mbytes=1024, max_items=9, restart_on_error=True
    )


def test_status_message_is_cut() -> None:
    """A message has at most 1000 characters."""
    changed = run_update(Fields({"statusMessage": "x" * 5000}))(RUN)
    assert changed is not None
    assert len(changed.status_message or "") == 1000


def test_the_last_word_stays() -> None:
    """After a terminal message no other is taken, while other fields still are."""
    last = run_update(Fields({"statusMessage": "done", "isStatusMessageTerminal": True}))(RUN)
    assert last is not None
    assert run_update(Fields({"statusMessage": "later"}))(last) is None
    shared = run_update(Fields({"statusMessage": "later", "generalAccess": "RESTRICTED"}))(last)
    assert shared is not None
    assert (shared.status_message, shared.general_access) == ("done", "RESTRICTED")


@pytest.mark.parametrize(
    "body",
    [{"generalAccess": "EVERYBODY"}, {"statusMessage": 5}, {"isStatusMessageTerminal": "yes"}],
)
def test_update_refused(body: dict[str, Any]) -> None:
    """A field of the wrong kind changes nothing."""
    with pytest.raises(InvalidRequest, match=next(iter(body))):
        run_update(Fields(body))
