"""Changes of a record by compare-and-set: read, decide, write, and begin again when somebody else was faster."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.errors import Conflict, RecordNotFound
from gateway.core.model import Actor, Run
from gateway.state.ports import Records

_TRIES = 20


async def change_run(records: Records, run_id: str, change: Callable[[Run], Run | None]) -> Run:
    """
    Store what *change* makes of the present run; None leaves it as it is. The run as it stands afterwards.

    *change* may be called several times and must not have effects. Raises RecordNotFound.
    """
    for _ in range(_TRIES):
        run = await records.run(run_id)
        if run is None:
            raise RecordNotFound("Actor run")
        wanted = change(run)
        if wanted is None:
            return run
        try:
            return await records.replace_run(wanted)
        except Conflict:
            continue
    raise Conflict(f"Run {run_id} changed {_TRIES} times while one change was tried.")


async def change_actor(records: Records, actor_id: str, change: Callable[[Actor], Actor | None]) -> Actor:
    """The same for an Actor."""
    for _ in range(_TRIES):
        actor = await records.actor(actor_id)
        if actor is None:
            raise RecordNotFound("Actor")
        wanted = change(actor)
        if wanted is None:
            return actor
        try:
            return await records.replace_actor(wanted)
        except Conflict:
            continue
    raise Conflict(f"Actor {actor_id} changed {_TRIES} times while one change was tried.")
