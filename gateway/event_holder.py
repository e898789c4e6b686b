"""
The holder of the events sockets: a small process that outlives the workers, since SDKs don't reconnect.

The JavaScript SDK never does, the Python SDK only sometimes. So a worker that has accepted such a connection passes it
on to this process, which ``gateway.parent`` starts before the first worker and ends after the last. What is sent over
the sockets the workers decide (``gateway.held_sockets``); here is neither a store nor a server, so that there is little
that could fail, and no reason to start it anew.

Of all workers that serve, one *leads*: it watches what the held runs are told, and sends it; ``gateway.sender_choice``
says which. While one follows another both watch, so that nobody counts as not connected in between; the frames of that
time are those of the old one, and what is told once comes from whoever is faster.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import socket
from collections.abc import Sequence

from gateway.child import enter_child
from gateway.held_socket import HeldSocket
from gateway.holder_link import Link, accept_link
from gateway.holder_messages import (
    Alive,
    AskFigures,
    Close,
    Dismissed,
    Figures,
    Gone,
    Held,
    Lead,
    LetGo,
    Message,
    Send,
    Take,
    Told,
    Use,
    Watching,
)
from gateway.sender_choice import Dismiss, Follow, Order, SenderChoice, StandBy

MAX_SOCKETS_PER_RUN = 10

_POLICY_VIOLATION = 1008
_GOING_AWAY = 1001
_GOODBYE_SECS = 1.0
_LOOK_SECS = 1.0


class Holder:
    """All held sockets and the links to workers; *group* owns the handshakes."""

    def __init__(self, rendezvous: socket.socket, group: asyncio.TaskGroup) -> None:
        self._rendezvous = rendezvous
        self._group = group
        self._sockets: dict[str, set[HeldSocket]] = {}
        self._refused: set[HeldSocket] = set()
        self._links: set[Link] = set()
        self._choice: SenderChoice[Link] = SenderChoice()
        self._uses: dict[Link, Use] = {}
        self._emptied = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Listen for workers."""
        asyncio.get_running_loop().add_reader(self._rendezvous.fileno(), self._accept)
        self._looking = self._group.create_task(self._look_for_ever())

    async def close(self) -> None:
        """Greenroom has ended: say goodbye."""
        asyncio.get_running_loop().remove_reader(self._rendezvous.fileno())
        if self._looking is not None:
            self._looking.cancel()
        for link in list(self._links):
            link.close()
        for sockets in list(self._sockets.values()):
            for held in list(sockets):
                held.close(_GOING_AWAY, "Greenroom stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECS):
                while self._sockets:
                    self._emptied.clear()
                    await self._emptied.wait()

    def _accept(self) -> None:
        sock = accept_link(self._rendezvous)
        if sock is not None:
            self._links.add(Link(sock, self._on_message, self._on_link_end))

    def _on_link_end(self, link: Link) -> None:
        self._links.discard(link)
        self._perform(self._choice.is_gone(link, self._now))
        use = self._uses.pop(link, None)
        if use is not None:
            self._tell_leaders(Use(use.gateway_id))

    def _on_message(self, link: Link, message: Message, descriptor: int | None) -> None:
        match message:
            case Take():
                self._take(message, descriptor)
            case Send():
                if message.once or self._choice.sends(link):
                    for held in list(self._sockets.get(message.run_id, ())):
                        if not (message.once and message.name in held.heard):
                            held.send(message.name, message.frames)
            case Close():
                for held in list(self._sockets.get(message.run_id, ())):
                    held.close(message.code, message.reason)
            case Lead():
                self._perform(self._choice.offers(link, self._now))
            case Watching():
                self._perform(self._choice.watches(link))
            case LetGo():
                self._perform(self._choice.lets_go(link, self._now))
            case Alive():
                self._choice.is_alive(link, self._now)
            case Use():
                self._uses[link] = message
                self._tell_leaders(message, but=link)
            case Told() | AskFigures() | Figures():
                for other in list(self._links - {link}):
                    other.send(message)
            case Held() | Gone() | Dismissed():
                pass  # for workers only

    # -- who leads --------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _perform(self, orders: Sequence[Order[Link]]) -> None:
        for order in orders:
            match order:
                case Follow(link):
                    link.send(Held(tuple(self._sockets), is_answer=True))
                    for other, use in self._uses.items():
                        if other is not link:
                            link.send(use)
                case StandBy(link):
                    link.send(Held((), is_answer=True))
                case Dismiss(link):
                    link.send(Dismissed())

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECS)
            self._perform(self._choice.look(self._now))

    def _tell_leaders(self, message: Message, *, but: Link | None = None) -> None:
        for one in self._choice.watching:
            if one is not but:
                one.send(message)

    # -- sockets ----------------------------------------------------------------------------------------------------

    def _take(self, message: Take, descriptor: int | None) -> None:
        if descriptor is None:
            return  # too many files are open: the connection is lost, as it would have been at its accepting
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        sockets = self._sockets.get(message.run_id, set())
        if len(sockets) < MAX_SOCKETS_PER_RUN:
            held = HeldSocket(message.head.encode(), lambda ended: self._forget(message.run_id, ended))
            self._sockets[message.run_id] = sockets | {held}
            self._tell_leaders(Held((message.run_id,)))
        else:
            held = HeldSocket(message.head.encode(), self._refused.discard)
            self._refused.add(held)
            held.close(_POLICY_VIOLATION, "too many connections of this run")
        self._group.create_task(_begin(held, sock))

    def _forget(self, run_id: str, held: HeldSocket) -> None:
        left = self._sockets.get(run_id, set()) - {held}
        if left:
            self._sockets[run_id] = left
        elif self._sockets.pop(run_id, None) is not None:
            self._tell_leaders(Gone(run_id))
            self._emptied.set()


async def _begin(held: HeldSocket, sock: socket.socket) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: held, sock)
    except OSError:  # it has gone meanwhile
        sock.close()
        held.give_up()


async def hold(rendezvous: socket.socket, parent: int) -> None:
    """Until the pipe *parent* ends."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(parent, ended.set)
    async with asyncio.TaskGroup() as group:
        holder = Holder(rendezvous, group)
        holder.open()
        await ended.wait()
        loop.remove_reader(parent)
        await holder.close()


def main() -> None:
    """The process's entry: the rendezvous as an inherited descriptor; the end of stdin is the end."""
    parser = argparse.ArgumentParser(prog="greenroom-event-holder")
    parser.add_argument("--rendezvous-fd", type=int, required=True)
    number = parser.parse_args().rendezvous_fd
    enter_child([number])
    rendezvous = socket.socket(fileno=number)
    rendezvous.setblocking(False)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.set_blocking(0, False)
    gc.freeze()
    asyncio.run(hold(rendezvous, 0))


if __name__ == "__main__":
    main()
