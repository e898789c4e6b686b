"""No I/O: the chart of ``loadtests.compare``, as SVG that is readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

_WIDTH = 760
_NAMES = 240
_VALUES = 150
_ROW = 30
_BAR = 18
_TOP = 56
_FOOT = 34


@dataclass(frozen=True)
class Bar:
    """One proxy: *value* in the chart's unit; ours are drawn in a colour of their own."""

    title: str
    value: float
    is_ours: bool = False


def chart(heading: str, unit: str, bars: Sequence[Bar], note: str) -> str:
    """
    Horizontal bars, least first.

    One that is far longer than the others would leave nothing to see of them: it is cut, with a mark, and its value
    says how long it is (``drawn_limit``).
    """
    if not bars:
        raise ValueError("a chart needs a bar")
    ordered = sorted(bars, key=lambda bar: bar.value)
    longest = drawn_limit([bar.value for bar in ordered])
    room = _WIDTH - _NAMES - _VALUES
    height = _TOP + _ROW * len(ordered) + _FOOT
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="14">'
    )
    colours = (
        "<style>text{fill:#24292f}.bar{fill:#8c959f}.ours{fill:#1a7f37}.soft{fill:#57606a}.cut{stroke:#ffffff}"
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#6e7681}.ours{fill:#3fb950}"
        ".soft{fill:#9198a1}.cut{stroke:#0d1117}}</style>"
    )
    parts = [
        opening,
        f"<title>{escape(heading)}</title>",
        colours,
        f'<text x="0" y="22" font-size="17" font-weight="600">{escape(heading)}</text>',
        f'<text x="0" y="42" class="soft">{escape(unit)}; shorter is better</text>',
    ]
    for number, bar in enumerate(ordered):
        y = _TOP + _ROW * number
        length = room * min(bar.value, longest) / longest
        weight = ' font-weight="600"' if bar.is_ours else ""
        kind = "bar ours" if bar.is_ours else "bar"
        middle = y + _BAR - 4
        parts.append(f'<text x="{_NAMES - 12}" y="{middle}" text-anchor="end"{weight}>{escape(bar.title)}</text>')
        parts.append(
            f'<rect class="{kind}" x="{_NAMES}" y="{y}" width="{max(1.0, length):.1f}" height="{_BAR}" rx="2"/>'
        )
        if bar.value > longest:
            cut = _NAMES + length - 24
            parts.append(
                f'<path class="cut" stroke-width="4" d="M{cut:.1f} {y + _BAR + 3}l8 {-_BAR - 6}m4 {_BAR + 6}'
                f'l8 {-_BAR - 6}"/>'
            )
        parts.append(f'<text x="{_NAMES + length + 8:.1f}" y="{middle}"{weight}>{said(bar.value)}</text>')
    parts.append(f'<text x="0" y="{height - 10}" font-size="12" class="soft">{escape(note)}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def drawn_limit(ordered: Sequence[float]) -> float:
    """
    The value of the longest bar that is drawn whole, a little more where others are cut.

    Of bars in order, those from the first on that is more than three times the one before it are cut, but not the
    second: of 15, 60, 70, 200 and 1,600 the last one.
    """
    for shorter, longer in pairwise(ordered[1:]):
        if longer > 3 * shorter:
            return 1.15 * shorter
    return ordered[-1]


def said(value: float) -> str:
    """The value in print: three digits, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
