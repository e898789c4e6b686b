"""
A standby Actor that does what a test asks for, in plain Python: tells what it saw, waits, streams, breaks off, dies.

Beside HTTP it speaks just enough WebSocket to echo frames, so that no test needs packages from outside.
"""

import base64
import contextlib
import hashlib
import json
import os
import random
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

busy = 0
busiest = 0
served = 0
left = 0
lock = threading.Lock()


class Probe(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_request(self):
        global busy, busiest, served
        if "x-apify-container-server-readiness-probe" in self.headers:
            self.answer(b"ready")
            return
        with lock:
            busy += 1
            served += 1
            busiest = max(busiest, busy)
        try:
            url = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
            getattr(self, "at_" + (url.path.strip("/").split("/")[0] or "root"), self.at_seen)(query)
        finally:
            with lock:
                busy -= 1

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = handle_request

    def answer(self, body, status=200, content_type="text/plain", headers=()):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tell(self, thing, headers=()):
        self.answer(json.dumps(thing).encode(), content_type="application/json", headers=headers)

    def body(self):
        """The request's body, piece by piece as it comes."""
        if self.headers.get("Transfer-Encoding"):
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        missing = int(self.headers.get("Content-Length") or 0)
        while missing:
            piece = self.rfile.read1(min(missing, 65536))
            missing -= len(piece)
            yield piece

    def begin_chunks(self, content_type="application/octet-stream"):
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def write_chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def at_root(self, query):
        self.answer(f"hello from {os.environ['ACTOR_RUN_ID']}".encode())

    def at_seen(self, query):
        body = b"".join(self.body())
        self.tell(
            {
                "runId": os.environ["ACTOR_RUN_ID"],
                "method": self.command,
                "target": self.path,
                "headers": self.headers.items(),
                "body": body.decode("latin-1"),
            },
            headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
        )

    def at_env(self, query):
        self.tell({"env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv})

    def at_count(self, query):
        self.tell({"runId": os.environ["ACTOR_RUN_ID"], "busiest": busiest, "served": served})

    def at_slow(self, query):
        time.sleep(float(query["ms"]) / 1000)
        self.tell({"runId": os.environ["ACTOR_RUN_ID"], "busiest": busiest})

    def at_stream(self, query):
        """Chunks, one each *ms*, with the time at which each was written."""
        self.begin_chunks("text/event-stream")
        for number in range(int(query["n"])):
            self.write_chunk(f"data: {number}\n\n".encode())
            time.sleep(float(query["ms"]) / 1000)
        self.write_chunk(b"")

    def at_until(self, query):
        """Answers when the file *file* is there; meanwhile *file*.begun says how many requests wait for it."""
        with lock, open(query["file"] + ".begun", "a") as begun:
            begun.write(".")
        wait_for_file(query["file"])
        self.tell({"runId": os.environ["ACTOR_RUN_ID"], "busiest": busiest})

    def at_echo(self, query):
        """Each piece of the request's body, given back as soon as it has come."""
        self.begin_chunks()
        for piece in self.body():
            self.write_chunk(piece)
        self.write_chunk(b"")

    def at_bytes(self, query):
        """*n* bytes that *n* alone determines."""
        self.answer(random.Random(int(query["n"])).randbytes(int(query["n"])), content_type="application/octet-stream")

    def at_sum(self, query):
        """Length and checksum of the request's body."""
        size, digest = 0, hashlib.sha256()
        for piece in self.body():
            size += len(piece)
            digest.update(piece)
        self.tell({"size": size, "sha256": digest.hexdigest()})

    def at_endless(self, query):
        """Never a whole answer (without *first* not even its head); counts the callers that have left."""
        global left
        if "first" in query:
            self.begin_chunks()
            self.write_chunk(b"first")
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        with lock:
            left += 1
        self.close_connection = True

    def at_left(self, query):
        self.tell({"left": left})

    def at_cut(self, query):
        """Half of the promised body (with *chunked*: a chunk, but not the last one), then the connection is gone."""
        if "chunked" in query:
            self.begin_chunks()
            self.write_chunk(b"x" * 500)
        else:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 500)
            self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def at_drop(self, query):
        """The connection is gone before a byte of the answer."""
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def at_log(self, query):
        print(query["text"], flush=True)
        self.answer(b"logged")

    def at_die(self, query):
        self.answer(b"dying")
        self.wfile.flush()
        print("told to die", flush=True)
        os._exit(int(query["code"]))

    def at_ws(self, query):
        """Echoes frames; the text ``close`` closes with 4001."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        if offered := self.headers.get("Sec-WebSocket-Protocol"):
            self.send_header("Sec-WebSocket-Protocol", offered.split(",")[-1].strip())
        self.end_headers()
        self.close_connection = True
        while True:
            opcode, data = self.read_frame()
            if opcode == 8:
                print(f"the caller closed with {int.from_bytes(data[:2])}", flush=True)
                self.write_frame(8, data[:2])
                return
            if data == b"close":
                self.write_frame(8, (4001).to_bytes(2) + b"as you wish")
                self.read_frame()
                return
            if opcode in (1, 2):
                self.write_frame(opcode, data)

    def read_frame(self):
        head = self.rfile.read(2)
        if len(head) < 2:
            return 8, b""
        size = head[1] & 127
        if size > 125:
            size = int.from_bytes(self.rfile.read(2 if size == 126 else 8))
        mask = self.rfile.read(4)
        return head[0] & 15, bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(size)))

    def write_frame(self, opcode, data):
        size = len(data)
        extra = (
            bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
        )
        self.wfile.write(bytes([128 | opcode]) + extra + data)
        self.wfile.flush()

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.01)


def begin_as_told():
    """
    What the variable PROBE_START asks for before the server begins: ``exit:3`` ends with this code, ``deaf`` never
    listens, ``file:PATH`` waits for a file. With PROBE_ONCE, the path of a file, only as long as that isn't there.
    """
    what, _, detail = os.environ.get("PROBE_START", "").partition(":")
    if once := os.environ.get("PROBE_ONCE"):
        try:
            open(once, "x").close()
        except FileExistsError:
            return
    if what == "exit":
        print(f"told to exit with {detail}", flush=True)
        sys.exit(int(detail))
    if what == "deaf":
        threading.Event().wait()
    if what == "file":
        wait_for_file(detail)


print("probe starts", flush=True)
begin_as_told()
Server(("127.0.0.1", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Probe).serve_forever()
