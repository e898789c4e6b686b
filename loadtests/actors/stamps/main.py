import time  # isort: skip

FIRST_LINE = time.monotonic_ns()

import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402

if len(sys.argv) > 1:  # bare: tell when the first line was reached, and end
    print(FIRST_LINE)
    sys.exit()

server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])))
server.listen(64)
LISTENING = time.monotonic_ns()
body = b"%d %d" % (FIRST_LINE, LISTENING)
answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
while True:
    connection, _ = server.accept()
    connection.recv(65536)
    connection.sendall(answer)
    connection.close()
