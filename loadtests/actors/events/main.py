"""An Actor of server-sent events, each with the time at which it was written, by the clock of this machine."""

import contextlib
import os
import socket
import threading
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = 3
PAUSE_SECS = 0.01


def serve(connection):
    """Request after request: a few events, and the end of the stream."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, contextlib.suppress(OSError):
        held = b""
        while True:
            while b"\r\n\r\n" not in held:
                piece = connection.recv(65536)
                if not piece:
                    return
                held += piece
            held = held.partition(b"\r\n\r\n")[2]
            connection.sendall(HEAD)
            for _ in range(EVENTS):
                event = b"data: %d\n\n" % time.monotonic_ns()
                connection.sendall(b"%x\r\n%b\r\n" % (len(event), event))
                time.sleep(PAUSE_SECS)
            connection.sendall(b"0\r\n\r\n")


with socket.create_server(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), backlog=256) as server:
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
