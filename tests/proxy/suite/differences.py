"""
Where the ASGI proxy differs from the protocol class: what ASGI can't carry.

Each entry is a scene by name, with the reason. The suite holds that these really differ, so that a difference
that was mended leaves this list; nothing else may differ.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.suite.stage import Door

_NO_TRAILERS = "ASGI has no message for trailers of a request; those of an answer would need an extension"
_NO_INTERIM = "ASGI has no message for interim answers"

SCENES_THAT_DIFFER: Mapping[str, str] = {
    "trailers reach the actor": _NO_TRAILERS,
    "trailers reach the caller": _NO_TRAILERS,
    "early hints": _NO_INTERIM,
    "several interim answers": _NO_INTERIM,
    "the reason phrase passes": "ASGI carries the status alone",
    "spelling of header names": "ASGI has names in lower case",
}


def differs(door: Door, name: str, listed: Mapping[str, str]) -> bool:
    """Whether *name* is listed for this door."""
    return door.path != "splice" and name in listed
