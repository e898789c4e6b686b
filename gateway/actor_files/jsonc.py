"""
No I/O: JSON as people write it by hand, and on which line each value stands.

Beyond JSON it takes comments, trailing commas, single quotes, unquoted keys and JSON5's numbers and escapes. Numbers
that JSON can't say (NaN, Infinity) and halves of surrogate pairs are refused: the result can always be written as JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from gateway.core.errors import DefinitionError

Path = tuple[str | int, ...]

_MAX_DEPTH = 100

_SPACE = re.compile(r"(?:[\s\ufeff]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_KEY = re.compile(r"[^\W\d][\w$]*|\$[\w$]*")
_NUMBER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_PLAIN = {'"': re.compile(r'[^"\\\r\n]*'), "'": re.compile(r"[^'\\\r\n]*")}
_HEX = {"x": re.compile(r"[0-9a-fA-F]{2}"), "u": re.compile(r"[0-9a-fA-F]{4}")}
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_CONTINUATIONS = ("\r\n", "\n", "\r", "\u2028", "\u2029")
_CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its *value*, and the line of each object member and array item by its path."""

    file: str
    value: Any
    lines: Mapping[Path, int]

    def line_of(self, path: Path) -> int:
        """The line on which *path* stands, or, where it is missing, the line of what would hold it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def parse(file: str, content: bytes) -> Document:
    """The value in *content*; raises DefinitionError, with *file* and line, at the first thing that can't be read."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DefinitionError(file, line, "text in UTF-8 is expected") from error
    parser = _Parser(file, text)
    value = parser.document()
    return Document(file, value, parser.lines)


class _Parser:
    """Recursive descent over one text; ``lines`` fills as values are met."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        # Lines are counted onwards from the last place asked for, so a file costs one pass, not one per value.
        self._counted_to = 0
        self._counted = 1

    def document(self) -> Any:
        value = self._value(())
        self._skip()
        if self.at < len(self.text):
            self._expected("the end of the file")
        return value

    def _line(self) -> int:
        self._counted += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        return self._counted

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None  # the pattern matches nothing, too
        self.at = match.end()
        if self.text.startswith("/*", self.at):
            self._fail("this comment has no end: */ is expected")

    def _peek(self) -> str:
        self._skip()
        return self.text[self.at : self.at + 1]

    def _fail(self, problem: str) -> NoReturn:
        raise DefinitionError(self.file, self._line(), problem)

    def _expected(self, what: str) -> NoReturn:
        found = self.text[self.at : self.at + 20].split("\n")[0].strip()
        self._fail(f"{what} is expected, not {found or 'the end of the file'}")

    def _value(self, path: Path) -> Any:
        first = self._peek()
        self.lines.setdefault(path, self._line())
        if len(path) > _MAX_DEPTH:
            self._fail(f"at most {_MAX_DEPTH} levels of nesting are expected")
        if first == "{":
            return self._object(path)
        if first == "[":
            return self._array(path)
        if first in _PLAIN:
            return self._string(first)
        number = _NUMBER.match(self.text, self.at)
        if number is not None:
            return self._number(number)
        word = _KEY.match(self.text, self.at)
        if word is None or word.group() not in _CONSTANTS:
            self._expected('a value (an object, an array, a text in "quotes", a number, true, false or null)')
        self.at = word.end()
        return _CONSTANTS[word.group()]

    def _object(self, path: Path) -> dict[str, Any]:
        self.at += 1
        members: dict[str, Any] = {}
        while self._peek() != "}":
            line = self._line()
            key = self._key()
            if self._peek() != ":":
                self._expected(f'a colon after "{key}"')
            self.at += 1
            self._forget((*path, key))
            self.lines[(*path, key)] = line
            members[key] = self._value((*path, key))
            self._separator("}")
        self.at += 1
        return members

    def _forget(self, path: Path) -> None:
        """Of a key that is written twice the last one counts, as everywhere in JSON, and so do the lines below it."""
        if path in self.lines:
            for known in [known for known in self.lines if known[: len(path)] == path]:
                del self.lines[known]

    def _array(self, path: Path) -> list[Any]:
        self.at += 1
        items: list[Any] = []
        while self._peek() != "]":
            items.append(self._value((*path, len(items))))
            self._separator("]")
        self.at += 1
        return items

    def _separator(self, closing: str) -> None:
        if self._peek() == ",":
            self.at += 1
        elif self._peek() != closing:
            self._expected(f"a comma or {closing}")

    def _key(self) -> str:
        quote = self._peek()
        if quote in _PLAIN:
            return self._string(quote)
        word = _KEY.match(self.text, self.at)
        if word is None:
            self._expected('a key in "quotes" or }')
        self.at = word.end()
        return word.group()

    def _number(self, match: re.Match[str]) -> int | float:
        text = match.group()
        digits = text.lstrip("+-")
        if digits[:2] in ("0x", "0X"):
            number: int | float = int(text, 16)
        elif digits[0] == "0" and digits[1:2].isdigit():
            self._expected("a number without leading zeros")
        elif digits.isdigit():
            if len(digits) > 400:  # as far as floats reach, and far below where int() refuses
                self._expected("a number of at most 400 digits")
            number = int(text)
        else:
            number = float(text)
        if isinstance(number, float) and not math.isfinite(number):
            self._expected("a number that fits 64 bits")
        self.at = match.end()
        return number

    def _string(self, quote: str) -> str:
        self.at += 1
        parts: list[str] = []
        while True:
            plain = _PLAIN[quote].match(self.text, self.at)
            assert plain is not None  # the pattern matches nothing, too
            parts.append(plain.group())
            self.at = plain.end()
            after = self.text[self.at : self.at + 1]
            if after == quote:
                self.at += 1
                return "".join(parts)
            if after != "\\":
                self._fail(f"this text has no end: {quote} is expected before the end of the line")
            self.at += 1
            parts.append(self._escape())

    def _escape(self) -> str:
        for ending in _CONTINUATIONS:
            if self.text.startswith(ending, self.at):
                self.at += len(ending)
                return ""
        letter = self.text[self.at : self.at + 1]
        self.at += 1
        if letter not in _HEX:
            return _ESCAPES.get(letter, letter)
        code = self._hex(letter)
        if 0xD800 <= code < 0xDC00 and self.text.startswith("\\u", self.at):
            self.at += 2
            low = self._hex("u")
            if 0xDC00 <= low < 0xE000:
                return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))
            self._fail("both halves of a surrogate pair are expected in \\u escapes")
        if 0xD800 <= code < 0xE000:
            self._fail("both halves of a surrogate pair are expected in \\u escapes")
        return chr(code)

    def _hex(self, letter: str) -> int:
        match = _HEX[letter].match(self.text, self.at)
        if match is None:
            self._fail(f"{2 if letter == 'x' else 4} hexadecimal digits are expected after \\{letter}")
        self.at = match.end()
        return int(match.group(), 16)
