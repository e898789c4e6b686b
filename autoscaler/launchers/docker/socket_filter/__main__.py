"""
The Docker socket, less all that Greenroom does not need: for a Greenroom that has no rights on this machine.

    python -m autoscaler.launchers.docker.socket_filter --listen PATH (--data DIR | --installation ID) [--engine PATH]

Whoever may use the engine's own socket is root on its machine. This program is such a one; it hears from Greenroom on
a socket of its own (which its group may use, nobody else) and lets pass what that needs, about its own containers,
images and network. Which those are says the id in Greenroom's data folder, or better --installation: then whoever has
taken over Greenroom can't change it. Ends by SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import resource
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from autoscaler.launchers.docker.socket_filter.server import SocketFilter
from gateway.installation import Installation, installation_of
from gateway.refusals import USAGE, Refused

_ENGINE = Path("/var/run/docker.sock")
_BACKLOG = 512
_ID = re.compile(r"[0-9a-f]{8}")


def _listen(path: Path) -> socket.socket:
    """A socket at *path* for this process's user and group; one that nobody listens at any more is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)
    try:
        _remove_dead(path)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise Refused(f"{path} can't be listened at: {error.strerror or error}.") from error
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _remove_dead(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Refused(f"{path} is there, and no socket: give another path with --listen.", exit_code=USAGE)
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise Refused(f"another program listens at {path}: end it, or give another path with --listen.")


def _installation(arguments: argparse.Namespace) -> Callable[[], Installation | None]:
    if arguments.installation is not None:
        if not _ID.fullmatch(arguments.installation):
            raise Refused("--installation is 8 hexadecimal digits, as in <data>/installation.", exit_code=USAGE)
        given = Installation(arguments.installation)
        return lambda: given
    data = Path(arguments.data)

    def read() -> Installation | None:
        try:
            return installation_of(data) if (data / "installation").exists() else None
        except (Refused, OSError) as error:
            logging.getLogger(__name__).error("%s", error)
            return None

    return read


def _say_ready() -> None:
    """To systemd, where that has started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
            notify.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            notify.send(b"READY=1")


async def _serve(arguments: argparse.Namespace, listener: socket.socket) -> None:
    socket_filter = SocketFilter(Path(arguments.engine), _installation(arguments))
    with listener:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told.set)
        print(f"Docker for Greenroom: {arguments.listen}, by {arguments.engine}", flush=True)
        _say_ready()
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(socket_filter.serve(listener))
            await told.wait()
            serving.cancel()


def main() -> int:
    """The exit code: 0 when told to end, 1 where it can't listen, 2 where it was mistaken."""
    parser = argparse.ArgumentParser(prog="socket_filter", allow_abbrev=False)
    parser.add_argument("--listen", required=True, metavar="PATH", help="The socket to make, for this group only.")
    parser.add_argument("--engine", default=str(_ENGINE), metavar="PATH", help=f"The engine's. Default: {_ENGINE}.")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--data", metavar="DIR", help="Greenroom's data folder; its id is awaited.")
    whose.add_argument("--installation", metavar="ID", help="The id that stands there in the file 'installation'.")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        listener = _listen(Path(arguments.listen))
        asyncio.run(_serve(arguments, listener))
        Path(arguments.listen).unlink(missing_ok=True)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return refused.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
