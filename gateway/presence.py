"""Who is there: each process of a Greenroom of several announces itself in the signals, as long as it lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from gateway.refusals import Refused
from gateway.secret_box import SecretBox
from gateway.state.directory import Directory
from gateway.state.ports import Signals, StateUnavailable
from gateway.state.steady import steadily

PRESENCE_SECS = 15.0
KINDS = ("gateway", "autoscaler")

_EVERY_SECS = 5.0
_WITHDRAW_SECS = 1.0
_LOOK_AGAIN_SECS = 60.0


@dataclass(slots=True)
class Presence:
    """One process, of this *kind*; *facts* are asked for each time that it announces itself."""

    signals: Signals
    kind: str
    id: str
    facts: Callable[[], Mapping[str, str]]
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def renew(self) -> None:
        """The facts have changed."""
        self._news.set()

    async def keep(self) -> None:
        """Until cancelled; then it is withdrawn."""
        try:
            await steadily(f"the presence of this {self.kind}", self._announce_for_ever)
        finally:
            with contextlib.suppress(StateUnavailable, TimeoutError):  # then it ends by its time
                async with asyncio.timeout(_WITHDRAW_SECS):
                    await self.signals.withdraw(self.kind, self.id)

    async def _announce_for_ever(self) -> None:
        while True:
            self._news.clear()
            await self.signals.announce(self.kind, self.id, self.facts(), ttl_secs=PRESENCE_SECS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECS):
                    await self._news.wait()


def key_print(box: SecretBox) -> str:
    """What tells keys apart and says nothing of them."""
    return box.derive("presence", "")[:16]


async def refuse_another_key(signals: Signals, box: SecretBox) -> None:
    """
    Raises Refused where a process that is there has another secret key: neither could read what the other has sealed,
    nor would the tokens of its runs hold.
    """
    mine = key_print(box)
    with contextlib.suppress(StateUnavailable):  # then it is for the next start to find out
        for kind in KINDS:
            for facts in (await signals.announced(kind)).values():
                if facts.get("key", mine) != mine:
                    raise Refused(
                        f"the secret key is not that of the {kind} on {facts.get('machine', 'another machine')}: give "
                        "all of them the same GREENROOM_SECRET_KEY, or the same data folder."
                    )


async def follow_missed(directory: Directory) -> None:
    """
    For ever: once a minute, compare the copy of the records with them. Who changed one may have died before he told.
    """
    await steadily("the look for changes of Actors", partial(_follow_missed, directory))


async def _follow_missed(directory: Directory) -> None:
    while True:
        await asyncio.sleep(_LOOK_AGAIN_SECS)
        await directory.load()
