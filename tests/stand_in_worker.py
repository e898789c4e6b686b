"""
A small worker in place of ``gateway.worker``: it keeps the parent's side of the bargain and can misbehave on request.

Behaviour is chosen by the path of a request (``/pid``, ``/lane``, ``/settings``, ``/crash``), by the variable
``STAND_IN`` and, before that, by the file ``stand-in`` in the data folder, or ``stand-in-1`` for the lane of that
number: ``refuse`` (ends with 2 before it serves), ``stubborn`` (ignores SIGTERM), ``deaf`` (ignores SIGQUIT too),
``leaving`` (as one whose loop has ended already: SIGTERM is ignored, SIGQUIT kills it), ``fall`` (prepares itself, and
ends with 5 when told to go), ``crash on hand over``, ``keep`` (does not end after it has handed over, until it is told
to stop).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator

from gateway.child import enter_child
from gateway.settings import Settings


def _answer(connection: socket.socket, settings: Settings, lane: int) -> None:
    connection.setblocking(True)
    path = connection.recv(4096).split()[1]
    if path == b"/crash":
        os._exit(3)
    body = {
        b"/pid": str(os.getpid()),
        b"/lane": f"{lane} {os.getpid()}",
        b"/settings": json.dumps({"token": settings.token, "argv": sys.argv, "variables": sorted(os.environ)}),
    }[path].encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    connection.close()


def _accept(listening: socket.socket, settings: Settings, lane: int) -> None:
    try:
        connection, _ = listening.accept()
    except BlockingIOError:  # another lane's worker was faster
        return
    _answer(connection, settings, lane)


def _orders(control: socket.socket) -> Iterator[tuple[str, list[int]]]:
    data, descriptors, _, _ = socket.recv_fds(control, 4096, 16)
    for line in data.decode().splitlines():
        is_cover = line.startswith("cover: ")
        yield line, descriptors if is_cover else []


def _close(selector: selectors.BaseSelector, sockets: list[socket.socket]) -> None:
    for one in sockets:
        selector.unregister(one)
        one.close()


def _behaviour(settings: Settings, lane: int) -> str:
    for name in (f"stand-in-{lane}", "stand-in"):
        with contextlib.suppress(FileNotFoundError):
            return (settings.data / name).read_text()
    return os.environ.get("STAND_IN", "")


def _end_on(behaviour: str, told: set[int]) -> int | None:
    ignored = {"stubborn": {signal.SIGTERM}, "leaving": {signal.SIGTERM}, "deaf": {signal.SIGTERM, signal.SIGQUIT}}
    told -= ignored.get(behaviour, set())
    if signal.SIGQUIT in told:
        return 7
    if told:
        print("drained", flush=True)
        return 0
    return None


def main() -> int:
    """Serve until told to stop or to hand over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sockets", required=True)
    parser.add_argument("--control-fd", required=True, type=int)
    parser.add_argument("--rendezvous-fd", required=True, type=int)
    parser.add_argument("--lane", type=int, default=0)
    parser.add_argument("--successor", action="store_true")
    arguments = parser.parse_args()
    numbers = [int(number) for number in arguments.sockets.split(",")]
    enter_child([*numbers, arguments.control_fd, arguments.rendezvous_fd])
    settings = Settings.model_validate_json(sys.stdin.read())
    control = socket.socket(fileno=arguments.control_fd)
    behaviour = _behaviour(settings, arguments.lane)
    if behaviour == "refuse":
        print("greenroom: this Actor file is broken", file=sys.stderr)
        control.sendall(b"refused: this Actor file is broken\n")
        return 2
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda _number, _frame: None)
    if behaviour == "leaving":
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if arguments.successor:
        control.sendall(b"prepared\n")
        assert control.recv(64) == b"go\n"
        if behaviour == "fall":
            return 5
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        selector.register(control, selectors.EVENT_READ)
        listening = [socket.socket(fileno=number) for number in numbers]
        for sock in listening:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
        covered: dict[str, list[socket.socket]] = {}
        control.sendall(b"ready\n")
        while True:
            with contextlib.suppress(OSError):
                control.send(b"alive\n", socket.MSG_DONTWAIT)
            for key, _ in selector.select(0.5):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is reader:
                    code = _end_on(behaviour, set(reader.recv(64)))
                    if code is not None:
                        return code
                elif sock is control:
                    for order, descriptors in _orders(control):
                        if order == "hand over":
                            if behaviour == "crash on hand over":
                                return 6
                            _close(selector, listening + [one for lane in covered.values() for one in lane])
                            control.sendall(b"handed over\n")
                            if behaviour != "keep":
                                return 0
                            selector.unregister(control)
                            print("keeps what it has", flush=True)
                        elif order.startswith("cover: "):
                            sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
                            covered[order.split()[1]] = sockets
                            for one in sockets:
                                selector.register(one, selectors.EVENT_READ)
                        else:
                            _close(selector, covered.pop(order.removeprefix("uncover: ")))
                elif sock.fileno() == -1:
                    pass  # closed in this very turn
                else:
                    _accept(sock, settings, arguments.lane)


if __name__ == "__main__":
    sys.exit(main())
