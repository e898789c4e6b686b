"""From the forked child of a shim to the Actor's own program, or the reason why not. Standard library only."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from autoscaler.launchers.process_table import PR_SET_PDEATHSIG, prctl


class SpawnFailed(Exception):
    """The Actor's command could not be started, and why."""


def _candidates(command: str, path: str) -> list[str]:
    if "/" in command:
        return [command]
    return [f"{folder}/{command}" for folder in path.split(":") if folder]


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Become the command; like ``execvpe``, but tells a missing interpreter from a missing command."""
    forbidden: str | None = None
    for candidate in _candidates(argv[0], env.get("PATH", "")):
        try:
            os.execve(candidate, argv, env)  # noqa: S606 - starting the Actor's own command is the product
        except (FileNotFoundError, NotADirectoryError):
            if Path(candidate).exists():
                raise SpawnFailed(f"{candidate}: the interpreter named in its first line was not found") from None
        except PermissionError:
            forbidden = candidate
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                raise SpawnFailed(
                    f"{candidate} is not a program: a script needs a first line such as #!/bin/sh"
                ) from None
            if error.errno == errno.E2BIG:
                raise SpawnFailed("the environment variables and arguments are too large for this system") from None
            raise
    if forbidden is not None:
        raise SpawnFailed(f"command not executable: {forbidden}")
    raise SpawnFailed(f"command not found: {argv[0]}")


def become_actor(
    order: Mapping[str, Any], shim_pid: int, output: int, failure: int, may_go: Callable[[], bool]
) -> NoReturn:
    """
    In the forked child: become the Actor of *order*, printing to *output*; or write to *failure* why not.

    *may_go* is asked at the last moment, and blocks: by then all is prepared and only the exec is left.
    """
    try:
        signal.set_wakeup_fd(-1)
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != shim_pid:
            os._exit(127)  # the shim died before it could be watched
        # Ignored signals stay ignored across exec, and an Actor expects to find them as everywhere.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            os.chdir(order["cwd"])
        except OSError as error:
            raise SpawnFailed(f"its folder can't be entered: {order['cwd']}: {error.strerror}") from None
        if not may_go():
            raise SpawnFailed("the launcher gave it up")
        _execute(order["argv"], order["env"])
    except SpawnFailed as error:
        os.write(failure, str(error).encode("utf-8", "replace"))
    except BaseException as error:  # a forked child has nobody to raise to
        os.write(failure, f"{order['argv'][0]} could not be started: {error}".encode("utf-8", "replace"))
    os._exit(127)
