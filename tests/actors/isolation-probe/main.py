"""
An Actor that tries to get out of its container, one attempt at a time, and tells how far it got.

On standby, ``POST /`` with ``{"attempt": NAME, …}`` answers ``{"done": …}`` with whatever the attempt gained, or
``{"stopped": why}``. As a batch run it does what the field ``harm`` of its input says, without end.
"""

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
MS_BIND = 4096
WAIT_SECS = 3

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


def call(function, *arguments):
    """A system call by the C library; raises OSError."""
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def in_child(act):
    """The result of *act* in a process of its own, which is spoilt afterwards."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            told = {"done": act()}
        except OSError as error:
            told = {"stopped": errno.errorcode.get(error.errno, str(error))}
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        told = json.load(file)
    os.waitpid(pid, 0)
    return told


class Attempts:
    """Each method is one attempt: what it gained, or an OSError."""

    def whoami(self):
        """No attempt: who it is, and where."""
        with open("/etc/resolv.conf") as file:
            resolv_conf = file.read()
        return {
            "uid": os.getuid(),
            "address": socket.gethostbyname(socket.gethostname()),
            "hostname": socket.gethostname(),
            "resolv_conf": resolv_conf,
            "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
            "environ": {name: value for name, value in os.environ.items() if name.startswith(("ACTOR_", "APIFY_"))},
        }

    def tcp(self, host, port):
        with socket.create_connection((host, port), timeout=WAIT_SECS):
            return "connected"

    def tcp_many(self, host, ports):
        """Of *ports*, those that answered in any way but silence or a refusal by a firewall."""

        async def answers(port):
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), WAIT_SECS)
                writer.close()
                return True
            return False

        # All at once, since a kernel sends so few refusals a second that the others are silence; and without threads,
        # of which this container may have fewer than the machine has ports.
        async def ask_all():
            return await asyncio.gather(*map(answers, ports))

        return [port for port, does in zip(ports, asyncio.run(ask_all()), strict=True) if does]

    def udp(self, host, port):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(WAIT_SECS)
            sock.connect((host, port))
            sock.send(b"ping")
            return sock.recv(100).decode(errors="replace")

    def unix(self, path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            return "connected"

    def resolve(self, name):
        return socket.gethostbyname(name)

    def http(self, path, token=None):
        """A call of Greenroom, as an Actor makes it; its status."""
        request = urllib.request.Request(os.environ["APIFY_API_BASE_URL"] + path)
        if token is not False:
            request.add_header("Authorization", f"Bearer {token or os.environ['APIFY_TOKEN']}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return {"status": answer.status, "text": answer.read(2000).decode()}
        except urllib.error.HTTPError as error:
            return {"status": error.code, "text": error.read(2000).decode()}

    def websocket(self, url=None):
        """What becomes of a socket, by default that of its own events: open, closed with a code, or not even opened."""
        url = urlsplit(url or os.environ["ACTOR_EVENTS_WEBSOCKET_URL"])
        with socket.create_connection((url.hostname, url.port), timeout=WAIT_SECS) as sock:
            sock.sendall(
                f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            heard = b""
            with contextlib.suppress(TimeoutError):  # nothing more is said
                while len(heard.partition(b"\r\n\r\n")[2]) < 4 and (piece := sock.recv(1000)):
                    heard += piece
            head, _, frame = heard.partition(b"\r\n\r\n")
            if b" 101 " not in head.partition(b"\r\n")[0]:
                return head.decode(errors="replace").partition("\r\n")[0]
            if frame[:1] == b"\x88":
                return f"closed with {int.from_bytes(frame[2:4], 'big')}"
            return "open"

    def mount(self):
        call(libc.mount, b"none", b"/mnt", b"tmpfs", 0, None)
        return "mounted"

    def bind_mount(self):
        call(libc.mount, b"/proc", b"/mnt", None, MS_BIND, None)
        return "mounted"

    def ptrace(self, pid):
        call(libc.ptrace, PTRACE_ATTACH, pid, None, None)
        libc.ptrace(PTRACE_DETACH, pid, None, None)
        return "attached"

    def kill(self, pid):
        os.kill(pid, 0)
        return "may signal"

    def raw_socket(self):
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
        return "opened"

    def packet_socket(self):
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)).close()
        return "opened"

    def user_namespace(self):
        call(libc.unshare, CLONE_NEWUSER | CLONE_NEWNS)
        return "unshared"

    def network_namespace(self):
        call(libc.unshare, CLONE_NEWNET)
        return "unshared"

    def write(self, path):
        with open(path, "r+") as file:
            file.write("1")
            file.flush()
        return "written"

    def read(self, path):
        with open(path) as file:
            return file.read(100)

    def make_device(self):
        os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0))
        return "made"

    def chroot(self):
        os.chroot("/tmp")
        return "done"

    def set_clock(self):
        time.clock_settime(time.CLOCK_REALTIME, time.time() + 3600)
        return "set"

    def load_module(self):
        call(libc.init_module, b"", 0, b"")
        return "loaded"

    def become_root(self):
        os.setuid(0)
        return os.getuid()

    def setuid_program(self):
        return subprocess.run(["id-as-root", "-u"], capture_output=True, text=True, check=True).stdout.strip()

    def fork(self):
        """Processes without end, all of which wait; how many it had when it was stopped."""
        children = []
        try:
            while True:
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                children.append(pid)
        except OSError as error:
            return {"children": len(children), "why": errno.errorcode[error.errno]}
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"ready": True})

    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        attempt = getattr(Attempts(), wanted.pop("attempt"))
        self.answer(in_child(lambda: attempt(**wanted)))

    def answer(self, told):
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def do_harm(harm):
    """Without end, until something stops it."""
    print(f"begins: {harm}", flush=True)
    if harm == "fork bomb":
        while True:
            with contextlib.suppress(OSError):
                os.fork()
    if harm == "memory hog":
        hoard = []
        while True:
            hoard.append(b"x" * 1024 * 1024)
    sys.exit(f"unknown: {harm}")


def batch_input():
    base, store = os.environ["APIFY_API_BASE_URL"], os.environ["ACTOR_DEFAULT_KEY_VALUE_STORE_ID"]
    request = urllib.request.Request(
        f"{base}/v2/key-value-stores/{store}/records/INPUT",
        headers={"Authorization": f"Bearer {os.environ['APIFY_TOKEN']}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


if os.environ.get("APIFY_META_ORIGIN") == "STANDBY":
    ThreadingHTTPServer(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
else:
    do_harm(batch_input()["harm"])
