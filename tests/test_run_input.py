"""The input record of a run, and the storages that are made with it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin, Run, RunOptions, StorageKind
from gateway.new_run import RANDOM_BYTES, bare_run, storage_ids, storages_of
from gateway.run_input import standby_input

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


def a_run(**definition: Any) -> tuple[Run, Build]:
    build = Build(
        id="BuildId0000000001",
        actor_id="ActorId0000000001",
        user_id="UserId00000000001",
        version_number="0.1",
        build_number="0.1.1",
        status=RunStatus.SUCCEEDED,
        started_at=AT,
        origin=Origin.CLI,
        definition=definition,
    )
    run = bare_run(
        build=build,
        user_id="UserId00000000001",
        origin=Origin.STANDBY,
        options=RunOptions(),
        now=AT,
        random_bytes=os.urandom(RANDOM_BYTES),
    )
    return run, build


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        pytest.param({}, None, id="no schema: none"),
        pytest.param({"input": {"type": "object", "properties": {}}}, {}, id="no defaults: an empty one"),
        pytest.param(
            {"input": {"properties": {"a": {"default": 1}, "b": {"prefill": 2}}, "required": ["b"]}},
            {"a": 1},
            id="defaults",
        ),
        pytest.param({"input": "nonsense"}, None, id="no schema at all"),
    ],
)
def test_the_input_of_a_standby_run(definition: Any, expected: Any) -> None:
    """The defaults of its schema, under the run's own key in its own store; never checked, so it is always there."""
    run, build = a_run(**definition)
    records = standby_input(run, build)
    if expected is None:
        assert records == ()
        return
    (record,) = records
    assert (record.store_id, record.key) == (run.default_key_value_store_id, "INPUT")
    assert record.content_type == "application/json; charset=utf-8"
    assert record.value is not None
    assert json.loads(record.value) == expected
    assert record.size == len(record.value)


def test_declared_datasets_have_ids_of_their_own() -> None:
    """Each alias once, at most ten with the default one; all of them are made with the run."""
    aliases = {f"a{n}": {} for n in range(9)}
    run, _ = a_run(storages={"datasets": {"default": {}, **aliases}})
    made = list(storages_of(run))
    assert len(made) == len(set(made)) == 12
    assert set(storage_ids(run)["datasets"]) == {"default", *aliases}
    assert {(StorageKind.DATASET, id_) for id_ in storage_ids(run)["datasets"].values()} <= set(made)


@pytest.mark.parametrize("storages", [None, {}, {"dataset": {}}, {"datasets": {"default": {}}}, {"datasets": []}, 1])
def test_nothing_declared_beside_the_default_ones(storages: Any) -> None:
    """Then there is nothing to tell."""
    run, _ = a_run(storages=storages)
    assert run.storage_ids == {}
    assert len(list(storages_of(run))) == 3
