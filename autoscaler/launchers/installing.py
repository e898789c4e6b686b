"""Runs pip, npm and their like: their output line by line, little of our environment, one at a time for one folder."""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from gateway.core.errors import LaunchError

P = ParamSpec("P")
T = TypeVar("T")

_POLL_SECS = 0.1
_TAIL_LINES = 15
_LINE_CHARS = 10_000
_READ_BYTES = 64 * 1024

# What an installer needs of the server's environment: where programs, settings, caches, proxies and certificates are.
_PASSED = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        *(name for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (proxy, proxy.lower())),
    }
)
_PASSED_PREFIXES = ("PIP_", "npm_config_", "NPM_CONFIG_")
# These would install somewhere else than into the environment.
_WITHHELD = frozenset({"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "PIP_REQUIRE_VIRTUALENV"})


def installer_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of *environ* that installers get; HOME is in it, since settings for pip and npm are kept there."""
    return {
        name: value
        for name, value in environ.items()
        if (name in _PASSED or name.startswith(_PASSED_PREFIXES)) and name not in _WITHHELD
    }


@asynccontextmanager
async def locked(path: Path, waiting: Callable[[], None]) -> AsyncIterator[int]:
    """
    Hold the file lock *path*, alone among all processes; calls *waiting* once if somebody else has it.

    Gives the lock's descriptor: a child that inherits it keeps the lock when this process is killed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    waiting()
                    told = True
            await asyncio.sleep(_POLL_SECS)
        try:
            yield descriptor
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As ``asyncio.to_thread``, but it is over when this returns, also when cancelled: nothing works on unlocked."""
    future = asyncio.get_running_loop().run_in_executor(None, lambda: function(*args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


async def run_installer(
    argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], say: Callable[[str], None], lock: int
) -> None:
    """
    Run *argv* to its end, telling *say* each line of its output.

    Raises LaunchError with the last lines if it fails. When cancelled it is killed with all its children first. Should
    this process be killed, it holds *lock* for as long as it goes on.
    """
    tool = Path(argv[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
        )
    except OSError as error:
        raise LaunchError(f"{tool} can't be started: {error}.") from error
    assert process.stdout is not None
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        async for line in _lines(process.stdout):
            say(line)
            tail.append(line)
        code = await process.wait()
    finally:
        # Also after a good end: what it left running in its session has no business any more.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code != 0:
        raise LaunchError("\n".join([f"{' '.join(map(str, argv))} failed with exit code {code}:", *tail]))


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines without their ends; a very long one in pieces. Carriage returns end a line too: progress bars use them."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while chunk := await stream.read(_READ_BYTES):
        *lines, rest = (rest + decoder.decode(chunk)).replace("\r", "\n").split("\n")
        for line in lines:
            if line.strip():
                yield line[:_LINE_CHARS]
        if len(rest) > _LINE_CHARS:
            yield rest
            rest = ""
    if rest.strip():
        yield rest
