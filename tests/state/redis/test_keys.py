"""The list of keys, and the page that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.state.redis.keys import PAGE, Keys, entry_of

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_lists_every_key() -> None:
    """``deploy/REDIS.md`` has a row for each entry, in its order, and no other."""
    lines = (ROOT / "deploy" / "REDIS.md").read_text().splitlines()
    start = lines.index("| key | type | holds | written by | ends |")
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(line)
    assert rows == [
        f"| `{entry.name}` | {entry.type} | {entry.holds} | {entry.written_by} | {entry.expiry} |" for entry in PAGE
    ]


def test_names() -> None:
    """Of keys and of channels, which tell databases apart."""
    keys = Keys(namespace="house", database=3)
    assert keys.key("presence", "gateway") == "{house}:presence:gateway"
    assert keys.channel("changes") == "{house}:3:changes"


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("routes", "routes"),
        ("routes:head", "routes:head"),
        ("lease:autoscaler", "lease:<name>"),
        ("sockets:abc", "sockets:<run id>"),
        ("presence:gateway:until", "presence:<kind>:until"),
        ("presence:gateway", "presence:<kind>"),
        ("sockets:", None),
        ("routes:tail", None),
        ("xroutes", None),
    ],
)
def test_keys_are_found_on_the_page(name: str, entry: str | None) -> None:
    """Each key belongs to one entry, or is not listed."""
    found = entry_of(name)
    assert (found.name if found else None) == entry
