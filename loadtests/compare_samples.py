"""One sample each of ``loadtests.compare``: callers at work for a second or two, and what that cost the proxy."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.compare_targets import NotMeasured, Target
from loadtests.compare_upstreams import SMALL, Programs, host_of
from loadtests.peers.roster import TEMPLATES
from loadtests.peers.tools import Tool
from loadtests.server import TOKEN

MIB = 1024 * 1024
UPLOAD_MIB = 10
CALLERS = 32
STREAMS = 4
SOCKETS = 32
# What every request carries, to whichever proxy: only Greenroom looks at the token.
FIXED = (
    ("Authorization", f"Bearer {TOKEN}"),
    ("User-Agent", "greenroom-compare/1"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "gzip, deflate, br"),
)
_HANDSHAKE = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


@dataclass(frozen=True)
class Sample:
    """*count* things (requests, MiB, messages) in *secs*, and the proxy's CPU time for them."""

    count: float
    secs: float
    cpu_secs: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds for each."""
        return self.cpu_secs / self.count * 1e6

    @property
    def per_sec(self) -> float:
        """How many in a second."""
        return self.count / self.secs


@dataclass(frozen=True)
class Latency:
    """What callers at a fixed rate waited, in milliseconds."""

    p50: float
    p95: float
    p99: float


def parse_wrk(output: str) -> dict[str, float]:
    """
    The line of JSON that our scripts make wrk end its output with.

    Raises NotMeasured where it is missing, or tells of errors or of no request at all.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise NotMeasured(f"wrk said nothing that can be read: {' '.join(output.split())[-300:]}")
    facts: dict[str, float] = json.loads(lines[-1])
    if facts["errors"] or not facts["requests"]:
        raise NotMeasured(f"{facts['errors']:g} of {facts['requests']:g} requests failed")
    return facts


def head_text(first: str, host: str, *more: tuple[str, str]) -> str:
    """A whole request head."""
    lines = [first, f"Host: {host}", *(f"{name}: {value}" for name, value in (*FIXED, *more))]
    return "\r\n".join(lines) + "\r\n\r\n"


@dataclass(frozen=True)
class Bench:
    """Takes samples with *programs*; what they read is written to *folder*."""

    programs: Programs
    folder: Path

    def steady(self, target: Target, secs: float) -> Sample:
        """The same GET of 100 bytes by 32 callers."""
        return self._requests(target, "steady.lua", secs, f"http://{target.at}/", self._headers(target, SMALL[0]))

    def varied(self, target: Target, secs: float) -> Sample:
        """GETs of which no two are alike, at four hosts."""
        fixed = self.folder / "fixed-lines"
        fixed.write_text("".join(f"{name}: {value}\r\n" for name, value in FIXED))
        hosts = [f"{host_of(name)}:{target.port}" for name in SMALL]
        return self._requests(target, "varied.lua", secs, f"http://{target.at}/", after=["--", str(fixed), *hosts])

    def down(self, target: Target, secs: float) -> Sample:
        """MiB of answers of 10 MiB, four at once; all that came counts."""
        sample, facts = self._measured(target, "steady.lua", secs, "/down")
        return Sample(facts["bytes"] / MIB, facts["secs"], sample)

    def up(self, target: Target, secs: float) -> Sample:
        """MiB of uploads of 10 MiB, four at once; those that were answered count."""
        sample, facts = self._measured(target, "upload.lua", secs, "/up")
        return Sample(facts["requests"] * UPLOAD_MIB, facts["secs"], sample)

    def messages(self, target: Target, secs: float) -> Sample:
        """WebSocket messages of 100 bytes in either direction, 32 sockets that each wait for their echo."""
        head = self.socket_head(target)
        used, facts = _cost(target, lambda: self._callers("echo", target, head, f"-sockets={SOCKETS}", f"-secs={secs}"))
        return Sample(facts["messages"], facts["secs"], used)

    def latency(self, at: str, host: str, rate: float, secs: float) -> Latency:
        """GETs at a fixed rate, whoever answers at *at*. Raises NotMeasured when the rate was not kept."""
        head = self._head(head_text("GET / HTTP/1.1", host))
        facts = self._told("rate", at, head, f"-rate={rate:.1f}", f"-secs={secs}", f"-connections={CALLERS}")
        if facts["failed"]:
            raise NotMeasured(f"{facts['failed']} of {facts['sent']} requests failed: {facts['error']}")
        if facts["secs"] > 1.2 * secs + 0.2:
            raise NotMeasured(f"the callers could not keep a rate of {rate:.0f}/s: {facts['secs']:.1f} s for {secs} s")
        return Latency(facts["p50_ms"], facts["p95_ms"], facts["p99_ms"])

    def socket_head(self, target: Target) -> Path:
        """A file with the handshake of a WebSocket to *target*."""
        return self._head(head_text("GET /ws HTTP/1.1", f"{host_of('big')}:{target.port}", *_HANDSHAKE))

    @contextlib.contextmanager
    def held_sockets(self, target: Target, count: int) -> Iterator[None]:
        """*count* WebSockets that stay open and are silent. Raises NotMeasured."""
        command = self._command("hold", target.at, self.socket_head(target), f"-sockets={count}")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as held:
            assert held.stdin is not None
            assert held.stdout is not None
            assert held.stderr is not None
            try:
                if not held.stdout.readline():
                    raise NotMeasured(f"{count} WebSockets could not be held: {held.stderr.read()[-300:].strip()}")
                yield
            finally:
                held.stdin.close()

    def _headers(self, target: Target, name: str) -> list[str]:
        pairs = (("Host", f"{host_of(name)}:{target.port}"), *FIXED)
        return [argument for header, value in pairs for argument in ("-H", f"{header}: {value}")]

    def _measured(self, target: Target, script: str, secs: float, path: str) -> tuple[float, dict[str, float]]:
        headers = self._headers(target, "big")
        return _cost(target, lambda: self._wrk(script, secs, f"http://{target.at}{path}", headers, callers=STREAMS))

    def _requests(
        self, target: Target, script: str, secs: float, url: str, headers: Sequence[str] = (), after: Sequence[str] = ()
    ) -> Sample:
        used, facts = _cost(target, lambda: self._wrk(script, secs, url, headers, after=after))
        return Sample(facts["requests"], facts["secs"], used)

    def _wrk(
        self,
        script: str,
        secs: float,
        url: str,
        headers: Sequence[str],
        *,
        callers: int = CALLERS,
        after: Sequence[str] = (),
    ) -> dict[str, float]:
        # wrk counts in whole seconds, and its connections are set up within them.
        command = [str(self.programs.wrk.path), "-t1", f"-c{callers}", f"-d{max(1, round(secs))}s", "--timeout", "10s"]
        script_path = str(TEMPLATES / script)
        return parse_wrk(_output([*command, "-s", script_path, *headers, url, *after], self.programs.wrk))

    def _callers(self, verb: str, target: Target, head: Path, *options: str) -> dict[str, Any]:
        return self._told(verb, target.at, head, *options)

    def _told(self, verb: str, at: str, head: Path, *options: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(_output(self._command(verb, at, head, *options), self.programs.callers))
        return facts

    def _command(self, verb: str, at: str, head: Path, *options: str) -> list[str]:
        return [str(self.programs.callers.path), verb, f"-at={at}", f"-head={head}", *options]

    def _head(self, text: str) -> Path:
        path = self.folder / "head"
        path.write_text(text, newline="")
        return path


def _cost(target: Target, work: Callable[[], dict[str, Any]]) -> tuple[float, dict[str, Any]]:
    """CPU seconds of *target* during *work*, and what that told. Raises NotMeasured with the proxy's last words."""
    before = target.cpu_secs()
    try:
        facts = work()
    except NotMeasured as error:
        raise NotMeasured(f"{target.title}: {error} {target.tail()[-300:]}".strip()) from error
    return target.cpu_secs() - before, facts


def _output(command: Sequence[str], tool: Tool) -> str:
    """What *command* printed; it runs on the load test's own core, which it inherits. Raises NotMeasured."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **tool.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"{Path(command[0]).name} did not end") from error
    if done.returncode != 0:
        raise NotMeasured(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout)[-300:].strip()}")
    return done.stdout
