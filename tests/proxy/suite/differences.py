"""
Where the ASGI proxy differs from the protocol class: what ASGI can't carry.

Each entry is a scene by name, with the reason. The suite holds that these really differ, so that a difference
that was mended leaves this list; nothing else may differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from proxy.suite.stage import Door

When = Literal["always", "cold"]

_NO_TRAILERS = "ASGI has no message for trailers of a request; those of an answer would need an extension"
_NO_INTERIM = "ASGI has no message for interim answers"

SCENES_THAT_DIFFER: Mapping[str, tuple[When, str]] = {
    "trailers reach the actor": ("always", _NO_TRAILERS),
    "trailers reach the caller": ("always", _NO_TRAILERS),
    "early hints": ("always", _NO_INTERIM),
    "several interim answers": ("always", _NO_INTERIM),
    "the reason phrase passes": ("always", "ASGI carries the status alone"),
    "spelling of header names": ("always", "ASGI has names in lower case"),
    "raw target /a?": ("always", "ASGI can't tell an empty query from none"),
    "raw target /?": ("always", "ASGI can't tell an empty query from none"),
    "a 304 keeps the length it speaks of": ("always", "the server library insists on as many bytes of body"),
    "an expectation that the actor refuses": (
        "cold",
        "to notice that a held caller leaves, its messages are asked for, upon which the server library sends the 100",
    ),
    "a body that the actor does not want": ("cold", "as above"),
    "a body from somebody whom the actor does not know": ("cold", "as above"),
}


def differs(door: Door, name: str, listed: Mapping[str, tuple[When, str]]) -> bool:
    """Whether *name* is listed for this door."""
    if door.path == "splice" or name not in listed:
        return False
    return listed[name][0] == "always" or door.is_cold
