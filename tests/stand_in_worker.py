"""
A small worker in place of ``gateway.worker``: it keeps the parent's side of the bargain and can misbehave on request.

Behaviour is chosen by the path of a request (``/pid``, ``/settings``, ``/crash``) and by the variable ``STAND_IN``:
``refuse`` (ends with 2 before it serves), ``stubborn`` (ignores SIGTERM), ``deaf`` (ignores SIGQUIT too),
``leaving`` (as one whose loop has ended already: SIGTERM is ignored, SIGQUIT kills it).
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import sys

from gateway.parent import enter_worker
from gateway.settings import Settings


def _answer(connection: socket.socket, settings: Settings) -> None:
    connection.setblocking(True)
    path = connection.recv(4096).split()[1]
    if path == b"/crash":
        os._exit(3)
    body = {
        b"/pid": str(os.getpid()),
        b"/settings": json.dumps({"token": settings.token, "argv": sys.argv, "variables": sorted(os.environ)}),
    }[path].encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    connection.close()


def main() -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sockets", required=True)
    parser.add_argument("--ready-fd", required=True, type=int)
    arguments = parser.parse_args()
    numbers = [int(number) for number in arguments.sockets.split(",")]
    enter_worker([*numbers, arguments.ready_fd])
    behaviour = os.environ.get("STAND_IN")
    settings = Settings.model_validate_json(sys.stdin.read())
    if behaviour == "refuse":
        print("greenroom: this Actor file is broken", file=sys.stderr)
        return 2
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda _number, _frame: None)
    if behaviour == "leaving":
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    ignored = {"stubborn": {signal.SIGTERM}, "leaving": {signal.SIGTERM}, "deaf": {signal.SIGTERM, signal.SIGQUIT}}.get(
        behaviour or "", set()
    )
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        for number in numbers:
            selector.register(socket.socket(fileno=number), selectors.EVENT_READ)
        os.write(arguments.ready_fd, b"ready\n")
        os.close(arguments.ready_fd)
        while True:
            for key, _ in selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is reader:
                    told = set(reader.recv(64)) - ignored
                    if signal.SIGQUIT in told:
                        return 7
                    if told:
                        print("drained", flush=True)
                        return 0
                else:
                    _answer(sock.accept()[0], settings)


if __name__ == "__main__":
    sys.exit(main())
