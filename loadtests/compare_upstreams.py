"""What stands behind the proxies of ``loadtests.compare``: nginx for small answers, a Go program for the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.compare_targets import free_port, process, wait_until_answers
from loadtests.peers.roster import TEMPLATES
from loadtests.peers.templates import Upstream, render
from loadtests.peers.tools import Tool, tool

SMALL = ("small-0", "small-1", "small-2", "small-3")
BODY_BYTES = 100
LENGTHS = 64


@dataclass(frozen=True)
class Programs:
    """What no comparison can do without."""

    wrk: Tool
    nginx: Tool
    upstream: Tool
    callers: Tool

    @classmethod
    def found(cls) -> Programs:
        """Fetched where they are not there. Raises NotInstalled."""
        return cls(wrk=tool("wrk"), nginx=tool("nginx"), upstream=tool("own:upstream"), callers=tool("own:callers"))


def host_of(name: str) -> str:
    """The host that leads to an upstream, through every proxy the same."""
    return f"local--{name}.localhost"


def body(length: int) -> str:
    """A text of *length* bytes."""
    return ("0123456789" * (length // 10 + 1))[:length]


def small_configuration(*, port: object, folder: Path) -> str:
    """nginx with an answer of 100 bytes at every path, and at ``/v0`` to ``/v63`` of 50 to 1,310 bytes."""
    each = [{"NAME": f"v{number}", "BODY": body(50 + 20 * number)} for number in range(LENGTHS)]
    values = {"PORT": port, "FOLDER": folder, "BODY": body(BODY_BYTES)}
    return render((TEMPLATES / "upstream-nginx.conf").read_text(), values, each)


@contextlib.contextmanager
def serving_upstreams(programs: Programs, core: int, folder: Path) -> Iterator[tuple[Upstream, ...]]:
    """The peers' upstreams, on *core*; Greenroom's are its own runs, of the same programs."""
    with contextlib.ExitStack() as stack:
        made = []
        for name in (*SMALL, "big"):
            place, port = folder / name, free_port()
            place.mkdir(parents=True)
            if name == "big":
                program, command = programs.upstream, [str(programs.upstream.path), f"-port={port}"]
            else:
                (place / "nginx.conf").write_text(small_configuration(port=port, folder=place))
                program = programs.nginx
                command = [str(program.path), "-p", str(place), "-c", str(place / "nginx.conf")]
            started = stack.enter_context(process(command, program, core, place))
            wait_until_answers(started, place, port, ["localhost"])
            made.append(Upstream(name=name, host=host_of(name), port=port))
        yield tuple(made)
