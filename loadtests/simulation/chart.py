"""No I/O: late requests against run-seconds, one panel for each trace, as SVG for light and for dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_PANEL_WIDTH, _PANEL_HEIGHT = 360, 260
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 34, 14, 40
_HEAD, _FOOT = 62, 40
_POLICIES = ("kpa", "greenroom", "platform", "fixed", "hybrid", "informed")
_NAMES = {"informed": "knows the rates"}
_MOST_RATIO = 2.0
_STYLE = (
    "<style>text{fill:#24292f}.soft{fill:#57606a}.axis{stroke:#8c959f;fill:none}.oracle{stroke:#8250df}"
    ".kpa{fill:#cf222e}.greenroom{fill:#1a7f37}.platform{fill:#0969da}.fixed{fill:#8c959f}.hybrid{fill:#bf8700}.informed{fill:#8250df}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.axis{stroke:#6e7681}"
    ".oracle{stroke:#ab7df8}.kpa{fill:#ff7b72}.greenroom{fill:#3fb950}.platform{fill:#58a6ff}"
    ".fixed{fill:#6e7681}.hybrid{fill:#d29922}.informed{fill:#ab7df8}}</style>"
)


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a policy: run-seconds over Knative's, and the share of requests that were late."""

    policy: str
    run_secs_ratio: float
    late_ratio: float
    title: str


def chart(heading: str, panels: Mapping[str, Sequence[Point]], oracles: Mapping[str, float], note: str) -> str:
    """
    Each setting is a dot: further left is cheaper, lower is sooner; the dashed line is who knows the future.

    What costs more than twice as much as Knative's stands at the right border; the share of late ones is drawn by its
    square root, so that a few in a thousand can be told apart.
    """
    if not panels:
        raise ValueError("a chart needs a panel")
    rows = math.ceil(len(panels) / 2)
    width, height = 2 * _PANEL_WIDTH, _HEAD + rows * _PANEL_HEIGHT + _FOOT
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="12">'
    )
    parts = [
        opening,
        f"<title>{escape(heading)}</title>",
        _STYLE,
        f'<text x="0" y="20" font-size="16" font-weight="600">{escape(heading)}</text>',
        *_legend(),
    ]
    for number, (trace, points) in enumerate(panels.items()):
        x, y = (number % 2) * _PANEL_WIDTH, _HEAD + (number // 2) * _PANEL_HEIGHT
        parts += _panel(trace, points, oracles.get(trace), x, y)
    parts.append(f'<text x="0" y="{height - 12}" class="soft">{escape(note)}</text></svg>')
    return "\n".join(parts) + "\n"


def _legend() -> list[str]:
    parts, x = [], 8
    for policy in _POLICIES:
        name = _NAMES.get(policy, policy)
        parts.append(f'<circle class="{policy}" cx="{x}" cy="42" r="5"/><text x="{x + 10}" y="46">{name}</text>')
        x += 36 + 7 * len(name)
    parts.append(f'<path class="oracle" stroke-dasharray="4 3" stroke-width="2" d="M{x - 6} 42h18"/>')
    parts.append(f'<text x="{x + 18}" y="46">knows the future</text>')
    return parts


def _panel(trace: str, points: Sequence[Point], oracle: float | None, x: float, y: float) -> list[str]:
    inner_width, inner_height = _PANEL_WIDTH - _LEFT - _RIGHT, _PANEL_HEIGHT - _TOP - _BOTTOM
    left, top = x + _LEFT, y + _TOP
    bottom = top + inner_height
    most_late = max([point.late_ratio for point in points] or [0.0]) or 0.01

    def across(ratio: float) -> float:
        return left + inner_width * min(ratio, _MOST_RATIO) / _MOST_RATIO

    def down(late: float) -> float:
        return bottom - inner_height * math.sqrt(late / most_late)

    parts = [
        f'<text x="{left}" y="{y + 18}" font-weight="600">{escape(trace)}</text>',
        f'<path class="axis" d="M{left} {top}V{bottom}H{left + inner_width}"/>',
    ]
    for ratio in (0.0, 0.5, 1.0, 1.5, 2.0):
        sign = "≥ " if ratio == _MOST_RATIO else ""
        parts.append(
            f'<text class="soft" x="{across(ratio):.1f}" y="{bottom + 15}" text-anchor="middle">{sign}{ratio:g}</text>'
        )
    parts.append(
        f'<text class="soft" x="{left + inner_width / 2}" y="{bottom + 30}" text-anchor="middle">'
        "run-seconds over Knative's</text>"
    )
    parts += [
        f'<text class="soft" x="{left - 5}" y="{down(late) + 4:.1f}" text-anchor="end">{100 * late:.2g} %</text>'
        for late in (0.0, most_late / 4, most_late)
    ]
    if oracle is not None:
        parts.append(
            f'<path class="oracle" stroke-dasharray="4 3" stroke-width="2" d="M{across(oracle):.1f} {top}V{bottom}"/>'
        )
    # Ours last, so that nobody hides it.
    ordered = sorted(points, key=lambda point: point.policy == "greenroom")
    parts += [
        f'<circle class="{point.policy}" cx="{across(point.run_secs_ratio):.1f}" cy="{down(point.late_ratio):.1f}" '
        f'r="4" fill-opacity="0.8"><title>{escape(point.title)}</title></circle>'
        for point in ordered
    ]
    return parts
