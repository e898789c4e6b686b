"""No I/O: the upgraded connections that stand, by run, so that somebody can say goodbye on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

GOING_AWAY = 1001
SERVICE_RESTART = 1012

# Asks both ends to leave, with a close code and a reason.
Closing = Callable[[int, str], None]


class OpenSockets:
    """Of each run, what closes its open sockets."""

    def __init__(self) -> None:
        self._by_run: dict[str, set[Closing]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_run.values()))

    def add(self, run_id: str, closing: Closing) -> None:
        """A socket of this run is open."""
        self._by_run.setdefault(run_id, set()).add(closing)

    def discard(self, run_id: str, closing: Closing) -> None:
        """It no longer is."""
        closings = self._by_run.get(run_id)
        if closings is not None:
            closings.discard(closing)
            if not closings:
                del self._by_run[run_id]

    @contextmanager
    def open(self, run_id: str, closing: Closing) -> Iterator[None]:
        """While it is entered, the socket is open."""
        self.add(run_id, closing)
        try:
            yield
        finally:
            self.discard(run_id, closing)

    def close(self, run_id: str | None = None, *, code: int = GOING_AWAY) -> None:
        """Say goodbye on the open sockets of one run, or of all."""
        reason = "restarting" if code == SERVICE_RESTART else "going away"
        for one in [run_id] if run_id is not None else list(self._by_run):
            for closing in list(self._by_run.get(one, ())):
                closing(code, reason)
