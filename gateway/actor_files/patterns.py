"""
No I/O: the regular expressions of input schemas, which are JavaScript's, tried within a bounded time.

Their author is the Actor's, the texts are any caller's, and a backtracking engine takes for ever with the wrong pair
of the two: ``re`` would hold the whole process meanwhile. So the engine is ``regex``, which gives up after a time and
lets other threads work meanwhile. A bound on the length of the texts would not do: thirty characters are enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import regex

MAX_PATTERN_CHARS = 10_000

# What JavaScript understands after a backslash, as ``regex`` does too; other letters mean something there alone.
_SAME_ESCAPES = frozenset("bBdDsSwWnrtfvx123456789")
# Digits and words are of ASCII alone. (A class can't hold a negated one, so there \D and \W stay as they are.)
_ASCII = {"d": "0-9", "w": "A-Za-z0-9_"}
_QUANTIFIER = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")
_GROUP = re.compile(r"\(\?(?::|=|!|<=|<!|<[A-Za-z_$][\w$]*>)")
_UNICODE = re.compile(r"u(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{4}))")
_LOW_SURROGATE = re.compile(r"\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
_NAMED = re.compile(r"k<([A-Za-z_$][\w$]*)>")
_PROPERTY = re.compile(r"[pP]\{[A-Za-z0-9_=]+\}")
_CONTROL = re.compile(r"c([A-Za-z])")
_ANY_BUT_LINE_ENDS = r"[^\n\r\u2028\u2029]"


class UnusablePattern(ValueError):
    """This is no regular expression of JavaScript's, or one with parts that are not understood here."""


class TooSlow(Exception):
    """The patterns of one check have used up its time; *pattern* is the one that was tried last."""

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern)
        self.pattern = pattern


class PatternBudget:
    """The time that the patterns of one check may take together: *secs* by *clock*."""

    def __init__(self, clock: Callable[[], float], secs: float) -> None:
        self._clock = clock
        self._left_secs = secs

    def finds(self, pattern: str, text: str) -> bool:
        """Whether *pattern* matches somewhere in *text*. Raises TooSlow, UnusablePattern."""
        if self._left_secs <= 0:
            raise TooSlow(pattern)
        began = self._clock()
        try:
            return compiled(pattern).search(text, timeout=self._left_secs, concurrent=True) is not None
        except TimeoutError:
            raise TooSlow(pattern) from None
        finally:
            self._left_secs -= self._clock() - began


@lru_cache(maxsize=1000)
def compiled(pattern: str) -> regex.Pattern[str]:
    """*pattern*, ready to be tried. Raises UnusablePattern."""
    if len(pattern) > MAX_PATTERN_CHARS:
        raise UnusablePattern(f"it is longer than {MAX_PATTERN_CHARS} characters")
    try:
        return regex.compile(_translated(pattern), regex.V0)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise UnusablePattern(str(error)) from error


def _translated(pattern: str) -> str:
    """The same in the words of ``regex``. Source: ECMA-262, patterns with the flag ``u``."""
    parts: list[str] = []
    at, is_in_class = 0, False
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            part, at = _escape(pattern, at + 1, is_in_class=is_in_class)
        elif is_in_class:
            is_in_class = character != "]"
            part, at = ("\\[" if character == "[" else character), at + 1
        elif character == "[":
            part, at, is_in_class = _class_start(pattern, at)
        else:
            part, at = _plain(pattern, at)
        parts.append(part)
    return "".join(parts)


def _class_start(pattern: str, at: int) -> tuple[str, int, bool]:
    """``[]`` matches nothing in JavaScript, and ``[^]`` anything."""
    for spelled, meant in (("[^]", r"[\s\S]"), ("[]", "(?!)")):
        if pattern.startswith(spelled, at):
            return meant, at + len(spelled), False
    return "[", at + 1, True


def _plain(pattern: str, at: int) -> tuple[str, int]:
    match pattern[at]:
        case "$":
            return r"\Z", at + 1
        case ".":
            return _ANY_BUT_LINE_ENDS, at + 1
        case "{":
            quantifier = _QUANTIFIER.match(pattern, at)
            return (quantifier[0], quantifier.end()) if quantifier else (r"\{", at + 1)
        case "(" if pattern.startswith("(?", at):
            group = _GROUP.match(pattern, at)
            if group is None:
                raise UnusablePattern(f"a group that begins with {pattern[at : at + 4]} is not understood")
            return group[0].replace("$", "_"), group.end()
        case other:
            return other, at + 1


def _escape(pattern: str, at: int, *, is_in_class: bool) -> tuple[str, int]:
    """What stands after a backslash at *at* - 1."""
    letter = pattern[at : at + 1]
    if letter in _ASCII:
        return (_ASCII[letter] if is_in_class else f"[{_ASCII[letter]}]"), at + 1
    if letter in {"D", "W"} and not is_in_class:
        return f"[^{_ASCII[letter.lower()]}]", at + 1
    if letter in _SAME_ESCAPES or (letter and not letter.isalnum()):
        return f"\\{letter}", at + 1
    if letter == "0":
        return r"\x00", at + 1
    if (found := _UNICODE.match(pattern, at)) is not None:
        code, at = int(found[1] or found[2], 16), found.end()
        low = _LOW_SURROGATE.match(pattern, at)
        if low is not None and 0xD800 <= code < 0xDC00:
            code, at = 0x10000 + ((code - 0xD800) << 10) + (int(low[1], 16) - 0xDC00), low.end()
        if code > 0x10FFFF:
            raise UnusablePattern("there is no character of this number")
        return f"\\U{code:08x}", at
    if (named := _NAMED.match(pattern, at)) is not None:
        return f"(?P={named[1].replace('$', '_')})", named.end()
    if (of_kind := _PROPERTY.match(pattern, at)) is not None:
        return f"\\{of_kind[0]}", of_kind.end()
    if (control := _CONTROL.match(pattern, at)) is not None:
        return f"\\x{ord(control[1]) % 32:02x}", control.end()
    raise UnusablePattern(f"\\{letter} is not understood")
