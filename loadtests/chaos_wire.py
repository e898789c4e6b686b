"""
The wires between the parts of a chaos test: one process, ``python -m loadtests.chaos_wire``, with many links.

A link is a port that leads to another one. It passes all bytes on, delays what comes back, holds everything (a
partition: nobody hears anything, and what was sent arrives when it has healed), or refuses (a machine that is there,
and a server that is not). It is told by lines of JSON on standard input, and answers each with a line when it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["pass", "delay", "hold", "refuse"]
_CHUNK_BYTES = 65_536
# Of one direction of one connection: who sends faster than the other end reads is slowed, as by TCP itself.
_CHUNKS = 256
_ANSWER_SECS = 10.0


@dataclass
class Link:
    """One port of ours that leads to *target* on this machine."""

    port: int
    target: int
    mode: Mode = "pass"
    delay_secs: float = 0.0
    _healed: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def set(self, mode: Mode, delay_secs: float = 0.0) -> None:
        """From now on it does this."""
        self.mode, self.delay_secs = mode, delay_secs
        if mode == "refuse":
            self._close()
        elif self._server is None:
            # A socket in TIME_WAIT of the refused ones must not be in the way.
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)
        if mode == "hold":
            self._healed.clear()
        else:
            self._healed.set()

    async def close(self) -> None:
        """Refuse, until nothing of it is left."""
        await self.set("refuse")
        if self._serving:
            await asyncio.wait(self._serving)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        self._writers.add(writer)
        try:
            # A connection is made on the other side of the partition, too.
            await self._healed.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(back)
        try:
            with contextlib.suppress(BaseExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    for source, sink, is_answer in ((reader, back, False), (there, writer, True)):
                        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS)
                        group.create_task(self._receive(source, chunks, is_answer))
                        group.create_task(self._send(chunks, sink))
        finally:
            for end in (writer, back):
                self._writers.discard(end)
                end.transport.abort()

    async def _receive(
        self, source: asyncio.StreamReader, chunks: asyncio.Queue[tuple[float, bytes]], is_answer: bool
    ) -> None:
        while True:
            chunk = await source.read(_CHUNK_BYTES)
            delay = self.delay_secs if is_answer and self.mode == "delay" else 0.0
            await chunks.put((asyncio.get_running_loop().time() + delay, chunk))
            if not chunk:
                return

    async def _send(self, chunks: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        while True:
            due, chunk = await chunks.get()
            if (wait := due - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(wait)
            await self._healed.wait()
            if not chunk:
                # Half-closed connections are nothing that Redis or PostgreSQL know: one end's end is the end.
                raise ConnectionResetError("one end has closed")
            sink.write(chunk)
            await sink.drain()


async def serve(ports: Mapping[str, tuple[int, int]]) -> None:
    """Links by name, (own port, target), until standard input ends."""
    links = {name: Link(port, target) for name, (port, target) in ports.items()}
    for link in links.values():
        await link.set("pass")
    print("ready", flush=True)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        order = json.loads(line)
        for name in order["links"]:
            await links[name].set(order["mode"], order.get("delay_secs", 0.0))
        print("done", flush=True)


class Wires:
    """The process of all links, and how it is told what to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def set(self, mode: Mode, *links: str, delay_secs: float = 0.0) -> None:
        """These links do this from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"links": links, "mode": mode, "delay_secs": delay_secs}) + "\n")
        self._process.stdin.flush()
        self.wait_for("done")

    def wait_for(self, word: str) -> None:
        """It has said *word*. Raises SystemExit where it has ended instead."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if said != word:
            raise SystemExit(f"the wires ended: {said!r}")


@contextlib.contextmanager
def wired(ports: Mapping[str, tuple[int, int]]) -> Iterator[Wires]:
    """The links by name, each (own port, target port), in a process of their own."""
    command = [sys.executable, "-m", "loadtests.chaos_wire", json.dumps(ports)]
    # In a session of its own, so that Ctrl-C ends the test before its wires.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wires = Wires(process)
        try:
            wires.wait_for("ready")
            yield wires
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
