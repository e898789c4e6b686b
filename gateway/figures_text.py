"""No I/O: several texts of figures, as Prometheus reads them, made one: each series says of which worker it is."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{?)")


def with_workers(texts: Mapping[int, str]) -> str:
    """The figures of all workers, by their numbers: each family once, its series with a label ``worker``."""
    heads: dict[str, list[str]] = {}
    series: dict[str, list[str]] = {}
    for number, text in sorted(texts.items()):
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                if line not in heads.setdefault(family, []):
                    heads[family].append(line)
            elif line:
                series.setdefault(family, []).append(_labelled(line, number))
    return "".join(f"{line}\n" for family, head in heads.items() for line in (*head, *series.get(family, ())))


def _labelled(line: str, number: int) -> str:
    found = _SERIES.match(line)
    if found is None:
        return line
    rest = line[found.end() :]
    label = f'worker="{number}"'
    if not found[2]:
        return f"{found[1]}{{{label}}}{rest}"
    return f"{found[1]}{{{label}{'' if rest.startswith('}') else ','}{rest}"
