"""
Which gateway processes of one data folder live: each holds a lock on a file that has its id as a name.

The kernel lets go of the lock when the process has ended, however it ended. So whoever gets it has proof, and what the
dead one had borrowed is free at once instead of when its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.state.ports import Signals
from gateway.state.steady import steadily

_log = logging.getLogger(__name__)

_EVERY_SECS = 1.0


def living_folder(data: Path) -> Path:
    """Where the files lie."""
    return data / "living"


@contextlib.contextmanager
def alive(data: Path, gateway_id: str) -> Iterator[Callable[[], None]]:
    """
    While it is entered, this process is seen to live; then it is one of the dead, unless it calls what this answers:
    it has given back all by itself. Raises OSError where that can't be written.
    """
    folder = living_folder(data)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / gateway_id
    # Locked before it has its name: nobody may find it in between and take it for one of the dead.
    unnamed = folder / f".{gateway_id}"
    descriptor = os.open(unnamed, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unnamed.rename(path)
        yield partial(path.unlink, missing_ok=True)
    finally:
        unnamed.unlink(missing_ok=True)
        os.close(descriptor)


def dead(data: Path) -> list[str]:
    """The ids of those that have ended without saying so; ``bury`` them once everybody knows."""
    with contextlib.suppress(FileNotFoundError):
        named = [path for path in living_folder(data).iterdir() if not path.name.startswith(".")]
        return sorted(path.name for path in named if _is_free(path))
    return []


def bury(data: Path, gateway_id: str) -> None:
    """Nobody needs to ask for it any more."""
    (living_folder(data) / gateway_id).unlink(missing_ok=True)


@dataclass(slots=True)
class Deaths:
    """
    The dead of *data*, for who looks again and again. What can't be seen now (too many files are open) is for the next
    look: that somebody else is dead is no reason to end. The log hears of such a trouble once.
    """

    data: Path
    _is_troubled: bool = False

    def take(self) -> list[str]:
        """Each once."""
        found: list[str] = []
        with self.patiently():
            for holder in dead(self.data):
                bury(self.data, holder)
                found.append(holder)
        return found

    @contextlib.contextmanager
    def patiently(self) -> Iterator[None]:
        """An OSError within ends it, and no more."""
        try:
            yield
        except OSError as error:
            if not self._is_troubled:
                _log.warning("who is dead can't be seen in %s at the moment: %s", living_folder(self.data), error)
            self._is_troubled = True
        else:
            self._is_troubled = False


async def follow_deaths(data: Path, signals: Signals) -> None:
    """For ever: give back what the dead of this data folder had borrowed, and forget what they had in flight."""
    await steadily("the look for dead gateways", partial(_follow_deaths, Deaths(data), signals))


async def _follow_deaths(deaths: Deaths, signals: Signals) -> None:
    while True:
        with deaths.patiently():
            for gateway_id in await asyncio.to_thread(dead, deaths.data):
                _log.info("the gateway process %s has ended without saying so: its slots are free", gateway_id)
                await signals.slots.withdraw(gateway_id)
                await signals.forget_demand(gateway_id)
                bury(deaths.data, gateway_id)
        await asyncio.sleep(_EVERY_SECS)


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
