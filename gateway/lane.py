"""
The place of one worker below ``gateway.parent``: who serves there, who is about to, and who still finishes.

A lane keeps itself filled: whoever ends unexpectedly is replaced after a pause. Its turn of a reload brings a
successor, by the words that stand in ``gateway.parent``. Lanes know nothing of each other; what concerns the whole the
parent decides.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import Protocol

from gateway.refusals import FAILED
from gateway.serve_children import KILL_AFTER_SECS, Starter, Worker, say

STOPPED_AT_ONCE = 130  # as a shell tells of a program that Ctrl-C ended

_FIRST_PAUSE_SECS = 1.0
_LONGEST_PAUSE_SECS = 30.0
_STEADY_SECS = 60.0  # a worker that served for so long has not failed because of its start
_SPARE_SECS = 10.0  # beyond the time that the worker itself gives its shutdown
_PREPARE_SECS = 300.0
_HAND_OVER_SECS = 60.0


class House(Protocol):
    """
    What a lane asks of its parent: how often a stop was asked for, and whether any worker has ever served.

    And what it tells: that its worker serves, a step of its turn, the end of its turn (with the problem, if any), and
    that it has ended for good, with an exit code.
    """

    stops_asked: int
    has_served: bool

    def lane_serves(self) -> None: ...
    def step(self, text: str) -> None: ...
    def turn_is_over(self, problem: str | None) -> None: ...
    def lane_is_over(self, lane: Lane, code: int) -> None: ...


@dataclass(slots=True)
class _Turn:
    """The reload of one lane: its *successor* until that is promoted, and until when the present step may last."""

    deadline: float
    successor: Worker | None = None
    is_prepared: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Lane:
    """*name* stands before what is said of this lane; it is empty where there is only one."""

    number: int
    name: str
    house: House
    starter: Starter
    _current: Worker | None = None
    _retired: list[Worker] = field(default_factory=list)
    _turn: _Turn | None = None
    _has_served: bool = False
    _pause_secs: float = _FIRST_PAUSE_SECS
    _restart_at: float | None = None

    # -- what the parent asks ---------------------------------------------------------------------------------------

    @property
    def serves(self) -> bool:
        """Whether its worker does."""
        return self._current is not None and self._current.ready_at is not None

    @property
    def accepting(self) -> Worker | None:
        """Its worker, where that serves, is not about to hand over, and not stuck."""
        worker = self._current
        if worker is None or worker.ready_at is None or worker.is_leaving or worker.secs_to_silence == 0:
            return None
        return worker

    @property
    def is_starting(self) -> bool:
        """Whether it has a worker that does not serve yet."""
        return self._current is not None and self._current.ready_at is None

    def began_after(self, at: float) -> bool:
        """Whether its worker was started after the moment *at*, of the monotonic clock."""
        return self._current is not None and self._current.started_at > at

    def workers(self) -> list[Worker]:
        """All that live, or have ended just now."""
        successor = self._turn.successor if self._turn else None
        return [worker for worker in (self._current, successor, *self._retired) if worker is not None]

    def secs_left(self) -> float | None:
        """How long to wait at most until something is due here; None: as long as it takes."""
        limits = [worker.kills.secs_left() for worker in self.workers()]
        accepting = self.accepting  # asked once: it may fall silent in this very moment
        if accepting is not None:
            limits.append(accepting.secs_to_silence)
        now = time.monotonic()
        limits += [max(0.0, at - now) for at in (self._restart_at, self._turn and self._turn.deadline) if at]
        return min((limit for limit in limits if limit is not None), default=None)

    # -- what the parent has it do ----------------------------------------------------------------------------------

    def start(self) -> None:
        """A worker for the empty place; where none can be started, as while code is being replaced, one later."""
        self._restart_at = None
        try:
            self._current = self.starter.worker(is_successor=False, lane=self.number)
        except OSError as error:
            why = f"no worker can be started: {error}"
            if not self.house.has_served:
                self._say(why)
                self.house.lane_is_over(self, FAILED)
                return
            if self._turn is not None:
                self._end_turn(why)
            self._start_later(why)

    def begin_turn(self) -> None:
        """Replace the worker that serves; where there is none, start one. Not while one is starting."""
        if self._current is None:
            self._turn = _Turn(0.0)
            self._step("a new worker starts", _PREPARE_SECS)
            self.start()
            return
        try:
            successor = self.starter.worker(is_successor=True, lane=self.number)
        except OSError as error:
            self._end_turn(f"no worker can be started: {error}")
            return
        self._turn = _Turn(0.0, successor)
        self._say("reloading: a new worker is prepared beside the one that serves.")
        self._step("a new worker is prepared", _PREPARE_SECS)

    def stop(self) -> None:
        """Greenroom is being stopped, gently or, the second time, at once."""
        if self._turn is not None:
            successor, self._turn.successor = self._turn.successor, None
            if successor is not None:  # it has begun nothing
                successor.process.kill()
                self._retired.append(successor)
            self._end_turn("Greenroom is being stopped.")
        if self._current is None:
            self._restart_at = None
            self.house.lane_is_over(self, 0)
        for worker in self.workers():
            if self.house.stops_asked == 1:
                worker.kills.ask(signal.SIGTERM, self._drain_secs)
            elif self.house.stops_asked == 2:
                worker.kills.ask(signal.SIGQUIT, KILL_AFTER_SECS)

    def look(self) -> None:
        """Hear what its workers say, and see who has ended."""
        for worker in self.workers():
            returncode = worker.returncode  # asked first: what it said last is heard nevertheless
            for line in worker.heard():
                self._hear(worker, line)
            if returncode is not None:
                worker.close()
                self._has_ended(worker, returncode)

    def perform_due(self) -> None:
        """Do what is due by now."""
        now = time.monotonic()
        for worker in self.workers():
            worker.kills.perform_due()
        if self._restart_at is not None and now >= self._restart_at:
            self.start()
        if self._turn is not None and now >= self._turn.deadline:
            self._give_up(self._turn)

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def _drain_secs(self) -> float:
        """Until a worker that was told to stop is told so again."""
        return self.starter.settings.shutdown_timeout_secs + _SPARE_SECS

    def _hear(self, worker: Worker, line: str) -> None:
        is_current = worker is self._current
        word, _, why = line.partition(": ")
        if word == "refused":
            worker.why = f"{worker.why} {why}".strip()
        elif word == "alive":
            worker.alive_at = time.monotonic()
        elif word == "ready" and is_current:
            worker.ready_at = time.monotonic()
            if self._has_served:
                self._say("the new worker serves.")
            self._has_served = True
            self.house.lane_serves()
            if self._turn is not None and self._turn.successor is None:
                self._end_turn(None)
        elif word == "prepared":
            if is_current:  # the old one has ended meanwhile
                worker.say("go")
            elif self._turn is not None and worker is self._turn.successor and self._current is not None:
                self._turn.is_prepared = True
                self._step("the new worker is prepared; the old one hands over", _HAND_OVER_SECS)
                self._current.hand_over()
        elif word == "handed over" and is_current and not self.house.stops_asked:  # else its end is that of the lane
            self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        worker.kills.plan(signal.SIGTERM, self.starter.settings.drain_timeout_secs + _SPARE_SECS)
        self._retired.append(worker)
        self._current = None
        if not self._promote():  # its successor has failed in the last moment
            self.start()

    def _promote(self) -> bool:
        """The successor takes the place of the worker that served; False where there is none."""
        if self._turn is None or self._turn.successor is None:
            return False
        self._current, self._turn.successor = self._turn.successor, None
        if self._turn.is_prepared:
            self._current.say("go")
        self._step("the new worker takes over", _PREPARE_SECS)
        return True

    def _has_ended(self, worker: Worker, returncode: int) -> None:
        if worker in self._retired:
            self._retired.remove(worker)
        elif self._turn is not None and worker is self._turn.successor:
            self._turn.successor = None
            self._end_turn(
                worker.why or f"The new worker ended ({_ended(returncode)}); the log of the server may tell why."
            )
        elif worker is self._current:
            self._current = None
            self._current_has_ended(worker, returncode)

    def _current_has_ended(self, worker: Worker, returncode: int) -> None:
        stopping = self.house.stops_asked > 0
        if stopping or not self.house.has_served:
            # Without having served it has told why; a start that fails at once is not repeated.
            self.house.lane_is_over(self, self._exit_code(returncode) or (0 if stopping else FAILED))
            return
        if self._promote():
            self._say(f"the worker ended unexpectedly ({_ended(returncode)}); the one of the reload takes over.")
            return
        if self._turn is not None:
            self._end_turn(worker.why or f"The new worker ended ({_ended(returncode)}) before it served.")
        if worker.ready_at is not None and time.monotonic() - worker.ready_at > _STEADY_SECS:
            self._pause_secs = _FIRST_PAUSE_SECS
        self._start_later(f"the worker ended unexpectedly ({_ended(returncode)})")

    def _start_later(self, why: str) -> None:
        self._say(f"{why}; a new one starts in {self._pause_secs:.0f} s, requests {self._meanwhile} meanwhile.")
        self._restart_at = time.monotonic() + self._pause_secs
        self._pause_secs = min(self._pause_secs * 2, _LONGEST_PAUSE_SECS)

    @property
    def _meanwhile(self) -> str:
        return "go to the others" if self.name else "wait"

    def _exit_code(self, returncode: int) -> int:
        if returncode == -signal.SIGTERM and self.house.stops_asked == 1:
            return 0  # asked to stop before it had begun anything that could be drained
        if returncode == -signal.SIGQUIT and self.house.stops_asked > 1:
            return STOPPED_AT_ONCE  # hit when it had just ended by itself
        return returncode if returncode >= 0 else 128 - returncode

    def _give_up(self, turn: _Turn) -> None:
        if turn.successor is not None and not turn.is_prepared:
            turn.successor.process.kill()
            self._retired.append(turn.successor)
            turn.successor = None
            self._end_turn("Its preparation took too long.")
        elif self._current is not None:
            # Stuck, be it before it hands over, perhaps without its sockets, or after it was handed over to: its end is
            # that of any worker, and makes room for the next one.
            self._current.process.kill()
            turn.deadline = time.monotonic() + _PREPARE_SECS

    def _step(self, text: str, limit_secs: float) -> None:
        assert self._turn is not None
        self._turn.deadline = time.monotonic() + limit_secs
        self.house.step(f"{self.name}{text}")

    def _end_turn(self, problem: str | None) -> None:
        self._turn = None
        self.house.turn_is_over(problem and f"{self.name}{problem}")

    def _say(self, text: str) -> None:
        say(f"{self.name}{text}")


def _ended(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
