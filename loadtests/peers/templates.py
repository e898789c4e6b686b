"""
No I/O: the peers' configurations, made of the templates beside this module.

``@NAME@`` is replaced by a value; the lines between ``# @EACH`` and ``# @END`` stand once for each upstream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_PLACE = re.compile(r"@([A-Z]+)@")
_EACH, _END = "# @EACH", "# @END"


class TemplateError(Exception):
    """A template that can't be filled in."""


@dataclass(frozen=True)
class Upstream:
    """One server behind the proxy: its name in configurations, the host (without port) that leads to it, its port."""

    name: str
    host: str
    port: int


def render(template: str, values: Mapping[str, object], each: Sequence[Mapping[str, object]] = ()) -> str:
    """The filled-in *template*. Raises TemplateError for a name without a value and for an unfinished ``@EACH``."""
    return "".join(_lines(iter(template.splitlines(keepends=True)), values, each))


def _lines(lines: Iterator[str], values: Mapping[str, object], each: Sequence[Mapping[str, object]]) -> Iterable[str]:
    for line in lines:
        if line.strip() == _EACH:
            block = list(_block(lines))
            for one in each:
                yield from (_filled(inner, {**values, **one}) for inner in block)
        elif line.strip() == _END:
            raise TemplateError("@END stands without @EACH")
        else:
            yield _filled(line, values)


def _block(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.strip() == _END:
            return
        yield line
    raise TemplateError("@EACH has no @END")


def _filled(line: str, values: Mapping[str, object]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise TemplateError(f"nothing stands for @{found[1]}@")
        return str(values[found[1]])

    return _PLACE.sub(value, line)


def for_upstreams(upstreams: Sequence[Upstream]) -> list[dict[str, object]]:
    """What stands for the names in a block of each upstream."""
    return [{"NAME": one.name, "HOST": one.host, "UPSTREAM": one.port} for one in upstreams]
