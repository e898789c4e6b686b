"""What every load test prints and writes: figures with their limits, and the machine they were measured on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["at_most", "at_least"]


@dataclass(frozen=True)
class Figure:
    """One measured value against its limit; *limit* None: for information only."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    kind: Kind = "at_most"

    @property
    def holds(self) -> bool:
        """Whether the limit is kept."""
        if self.limit is None:
            return True
        return self.value <= self.limit if self.kind == "at_most" else self.value >= self.limit


@dataclass
class Report:
    """The outcome of one load test. *missing* names figures that could not be measured, and why: never assumed."""

    figures: list[Figure] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str, limit: float | None = None, kind: Kind = "at_most") -> None:
        """Record one figure."""
        self.figures.append(Figure(name, round(value, 4), unit, limit, kind))

    @property
    def holds(self) -> bool:
        """Whether every figure was measured and keeps its limit."""
        return not self.missing and all(figure.holds for figure in self.figures)

    def table(self) -> str:
        """Figure, value, limit and whether it holds."""
        rows = [("figure", "value", "limit", "holds")]
        for figure in self.figures:
            sign = "≤" if figure.kind == "at_most" else "≥"
            limit = f"{sign} {figure.limit:g} {figure.unit}" if figure.limit is not None else "-"
            verdict = "-" if figure.limit is None else "yes" if figure.holds else "NO"
            rows.append((figure.name, f"{figure.value:g} {figure.unit}", limit, verdict))
        rows += [(name, "not measured", why, "NO") for name, why in self.missing.items()]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def as_json(self) -> dict[str, Any]:
        """The machine-readable form."""
        return {
            "figures": {
                figure.name: {
                    "value": figure.value,
                    "unit": figure.unit,
                    "limit": figure.limit,
                    "kind": figure.kind,
                    "holds": figure.holds,
                }
                for figure in self.figures
            },
            "missing": self.missing,
            "machine": machine(),
            "raw": self.raw,
        }


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_1min": os.getloadavg()[0],
    }


def percentile(values: list[float], share: float) -> float:
    """The smallest value that *share* of all values don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, int(share * len(ordered) + 0.999999) - 1))]


def arguments(description: str) -> argparse.Namespace:
    """The command line of a load test that has no options of its own."""
    return command_line(description).parse_args()


def command_line(description: str) -> argparse.ArgumentParser:
    """The options that all load tests share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, at most two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser


def finish(report: Report, given: argparse.Namespace) -> None:
    """Print, write, and end with 0 only if all holds."""
    print(report.table())
    if given.json:
        given.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    sys.exit(0 if report.holds else 1)
