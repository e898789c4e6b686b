"""Records of every kind for the contract suites, each with an id of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

from gateway.core.ids import token_hash
from gateway.core.lifecycle import RunStatus
from gateway.core.model import (
    Actor,
    Build,
    DecisionRecord,
    Origin,
    Run,
    RunOptions,
    Storage,
    StorageKind,
    Token,
    User,
)
from gateway.state.ports import Records

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
_numbers = count()


def new_id() -> str:
    """An id that no other record of this process has."""
    return f"{next(_numbers):017}"


def a_user(**changes: Any) -> User:
    user_id = new_id()
    return replace(User(id=user_id, username=f"user{user_id}", is_admin=False, created_at=START), **changes)


def an_actor(user_id: str, **changes: Any) -> Actor:
    actor_id = new_id()
    actor = Actor(id=actor_id, user_id=user_id, name=f"actor{actor_id}", created_at=START, modified_at=START)
    return replace(actor, **changes)


def a_build(actor: Actor, **changes: Any) -> Build:
    build = Build(
        id=new_id(),
        actor_id=actor.id,
        user_id=actor.user_id,
        version_number="0.1",
        build_number="",
        status=RunStatus.READY,
        started_at=START,
        origin=Origin.CLI,
    )
    return replace(build, **changes)


def a_run(user_id: str, **changes: Any) -> Run:
    run_id = new_id()
    run = Run(
        id=run_id,
        actor_id="some-actor",
        user_id=user_id,
        build_id="some-build",
        build_number="0.1.1",
        status=RunStatus.READY,
        started_at=START,
        origin=Origin.STANDBY,
        options=RunOptions(),
        live_view_label=f"label{run_id}",
        default_key_value_store_id=new_id(),
        default_dataset_id=new_id(),
        default_request_queue_id=new_id(),
    )
    return replace(run, **changes)


def a_token(user_id: str, **changes: Any) -> Token:
    token_id = new_id()
    token = Token(
        id=token_id,
        user_id=user_id,
        name="a token",
        token_hash=token_hash(token_id),
        scopes=frozenset({"*"}),
        created_at=START,
    )
    return replace(token, **changes)


def storages_of(run: Run) -> list[Storage]:
    """The three default storages of *run*."""
    ids = (run.default_key_value_store_id, run.default_dataset_id, run.default_request_queue_id)
    return [
        Storage(
            id=storage_id,
            kind=kind,
            user_id=run.user_id,
            created_at=START,
            modified_at=START,
            accessed_at=START,
            run_id=run.id,
        )
        for kind, storage_id in zip(StorageKind, ids, strict=True)
    ]


def a_decision(pool_id: str, **changes: Any) -> DecisionRecord:
    decision = DecisionRecord(
        id=new_id(), pool_id=pool_id, actor_id="some-actor", at=START, wanted_runs=1, present_runs=0, reasons=("asked",)
    )
    return replace(decision, **changes)


async def add_run(records: Records, run: Run) -> Run:
    await records.add_run(run, a_token(run.user_id, run_id=run.id), storages_of(run))
    return run


async def make(records: Records, kind: str, user: User, actor: Actor) -> tuple[Any, Any]:
    """A stored record of *kind* and the verb that replaces it."""
    if kind == "actor":
        return actor, records.replace_actor
    if kind == "build":
        return await records.add_build(a_build(actor)), records.replace_build
    return await add_run(records, a_run(user.id)), records.replace_run
