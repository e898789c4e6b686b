"""
``Idempotency-Key`` at run starts: the same key of the same user within a day means the same run.

Nothing is kept for it. The id of the run is derived from user, key and day, so the run itself is the memory: durable,
shared by all processes, and of two starts at the same moment the records let one through. A run that was deleted
meanwhile has given its key back.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.api.errors import InvalidIdempotencyKey
from gateway.core.ids import record_id
from gateway.core.model import Run
from gateway.secret_box import SecretBox
from gateway.state.ports import Records

LASTS = timedelta(hours=24)
_MAX_KEY_CHARS = 255


class StartKey:
    """One caller's key for one run start, at the moment *now*."""

    def __init__(self, box: SecretBox, user_id: str, key: str, now: datetime) -> None:
        if not key.isprintable() or not 1 <= len(key) <= _MAX_KEY_CHARS:
            raise InvalidIdempotencyKey(f"Idempotency-Key has 1 to {_MAX_KEY_CHARS} printable characters.")
        self._box, self._user_id, self._key, self._now = box, user_id, key, now
        self._day = int(now.timestamp() // LASTS.total_seconds())

    def _random_bytes(self, day: int) -> bytes:
        return bytes.fromhex(self._box.derive("idempotency", f"{self._user_id}\0{day}\0{self._key}"))

    @property
    def id_bytes(self) -> bytes:
        """In place of the random bytes that the run's id is made of."""
        return self._random_bytes(self._day)

    async def earlier_run(self, records: Records, actor_id: str) -> Run | None:
        """
        The run that this key has started within the last day: today's, or one of yesterday that is not older.

        Raises InvalidIdempotencyKey when it was one of another Actor.
        """
        for day in (self._day, self._day - 1):
            run = await records.run(record_id(self._random_bytes(day)))
            if run is not None and run.user_id == self._user_id and run.started_at > self._now - LASTS:
                if run.actor_id != actor_id:
                    raise InvalidIdempotencyKey("This Idempotency-Key has started a run of another Actor already.")
                return run
        return None
