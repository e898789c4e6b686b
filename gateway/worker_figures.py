"""
The figures of all workers of one parent, at whichever of them somebody asks for them.

A collector reaches one worker, by chance; it is told of all, each series with the lane of its worker. Workers ask each
other by way of the holder of the events sockets, which they all are linked to. One that does not answer soon is left
out, as is one that only finishes what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.figures_text import with_workers
from gateway.holder_messages import AskFigures, Figures, Message

_ANSWER_SECS = 1.0


@dataclass(slots=True)
class WorkerFigures:
    """
    Of the worker in this *lane*, of so many *workers*. *render* gives its own figures as text, *send* reaches the other
    workers (False: there is no way to them), ``hear`` is to be told of what they send. *own_id* tells it from them.
    """

    own_id: str
    lane: int
    workers: int
    render: Callable[[], bytes]
    send: Callable[[Message], bool]
    serves: bool = False
    _asked: int = 0
    _answers: dict[str, asyncio.Queue[Figures]] = field(default_factory=dict)

    async def of_all(self) -> bytes:
        """This worker's figures and those of the others that serve."""
        own = self.render()
        if self.workers == 1:
            return own
        self._asked += 1
        question = f"{self.own_id}/{self._asked}"
        answers = self._answers[question] = asyncio.Queue(self.workers)
        found = {self.lane: own.decode()}
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_SECS if self.send(AskFigures(question)) else 0):
                    while len(found) < self.workers:
                        answer = await answers.get()
                        found.setdefault(answer.lane, answer.text)
        finally:
            del self._answers[question]
        return with_workers(found).encode()

    def hear(self, message: Message) -> None:
        """Something that is not about events sockets."""
        match message:
            case AskFigures() if self.serves:
                self.send(Figures(message.question, self.lane, self.render().decode()))
            case Figures() if message.question in self._answers:
                with contextlib.suppress(asyncio.QueueFull):
                    self._answers[message.question].put_nowait(message)
            case _:
                pass
