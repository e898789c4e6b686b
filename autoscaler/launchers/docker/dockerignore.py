"""
No I/O: which files of a context ``.dockerignore`` leaves out, as Docker itself decides it.

The last pattern that matches decides; one that matches a folder matches all below it, and ``!`` brings back.
Source: the builder's reference, and the engine's own pattern matcher.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

_MAX_PATTERNS = 5000


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: re.Pattern[str]
    brings_back: bool


class DockerIgnore:
    """The patterns of one file; those that can't be understood match nothing."""

    def __init__(self, text: str) -> None:
        self._patterns = [found for line in text.splitlines()[:_MAX_PATTERNS] if (found := _pattern(line)) is not None]

    def leaves_out(self, name: str) -> bool:
        """Whether *name*, a path relative to the context, is left out."""
        parts = name.split("/")
        places = [name, *("/".join(parts[:count]) for count in range(1, len(parts)))]
        is_out = False
        for pattern in self._patterns:
            # One that could not change the answer is not looked at.
            if pattern.brings_back == is_out and any(pattern.regex.fullmatch(place) for place in places):
                is_out = not pattern.brings_back
        return is_out


def _pattern(line: str) -> _Pattern | None:
    if line.startswith("#"):
        return None
    text = line.strip().removeprefix("\ufeff")
    brings_back = text.startswith("!")
    if brings_back:
        text = text[1:].strip()
    if not text:
        return None
    text = posixpath.normpath(text).lstrip("/") or "."
    try:
        return _Pattern(re.compile(_regex(text)), brings_back)
    except re.error:
        return None


def _set(inner: str) -> str:
    """A set of characters; ``^`` at its beginning: all others."""
    negation, inner = ("^", inner[1:]) if inner.startswith("^") and len(inner) > 1 else ("", inner)
    made: list[str] = []
    at = 0
    while at < len(inner):
        if inner[at + 1 : at + 2] == "-" and at + 2 < len(inner):
            made.append(f"{re.escape(inner[at])}-{re.escape(inner[at + 2])}")
            at += 3
        else:
            made.append(re.escape(inner[at]))
            at += 1
    return f"(?!/)[{negation}{''.join(made)}]"


def _regex(text: str) -> str:
    """``*`` and ``?`` within one part of a path, ``**`` over any number of parts, ``[a-z]``, and ``\\`` to escape."""
    made: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if text.startswith("**", at - 1):
            at += 1
            if text.startswith("/", at):
                at += 1
            made.append("(?:.*/)?" if at < len(text) else ".*")
        elif character == "*":
            made.append("[^/]*")
        elif character == "?":
            made.append("[^/]")
        elif character == "[" and (end := text.find("]", at + 1)) > 0:
            made.append(_set(text[at:end]))
            at = end + 1
        elif character == "\\" and at < len(text):
            made.append(re.escape(text[at]))
            at += 1
        else:
            made.append(re.escape(character))
    return "(?s:" + "".join(made) + ")"
