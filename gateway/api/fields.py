"""
No I/O: reads a JSON object or a query field by field, so that each mistake is told with the field's name.

Numbers are bounded, since no store takes integers of any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.core.errors import InvalidRequest
from gateway.core.times import parse_iso

MAX_INT = 2**53 - 1  # the largest that JavaScript clients can hold
_MAX_TEXT_CHARS = 1_000_000


def refuse(field: str, expected: str) -> InvalidRequest:
    """The error for a *field* that is not what is *expected*."""
    return InvalidRequest(f"{field} must be {expected}.", data={"field": field})


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object of a request; *prefix* is where it stands in the body, e.g. ``versions[0].``."""

    values: Mapping[str, Any]
    prefix: str = ""

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def name_of(self, key: str) -> str:
        """The field as messages name it."""
        return f"{self.prefix}{key}"

    def text(self, key: str, default: str = "", *, max_chars: int = _MAX_TEXT_CHARS) -> str:
        """A text; *default* where it is absent or null."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise refuse(self.name_of(key), "a text")
        if len(value) > max_chars:
            raise refuse(self.name_of(key), f"at most {max_chars} characters long")
        return value

    def text_or_none(self, key: str, *, max_chars: int = _MAX_TEXT_CHARS) -> str | None:
        """A text; None where it is absent or null."""
        return None if self.values.get(key) is None else self.text(key, max_chars=max_chars)

    def needed_text(self, key: str, *, max_chars: int = _MAX_TEXT_CHARS) -> str:
        """A text that must be there and not be empty."""
        value = self.text(key, max_chars=max_chars)
        if not value:
            raise refuse(self.name_of(key), "given and not empty")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false; *default* where it is absent or null."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise refuse(self.name_of(key), "true or false")
        return value

    def whole(self, key: str, default: int, *, least: int = 0, most: int = MAX_INT) -> int:
        """A whole number (``5.0`` is one, as JSON knows no difference); *default* where it is absent or null."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise refuse(self.name_of(key), f"a whole number from {least} to {most}")
        return value

    def object_or_none(self, key: str) -> Fields | None:
        """A nested object; None where it is absent or null."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise refuse(self.name_of(key), "an object")
        return Fields(value, f"{self.name_of(key)}.")

    def objects(self, key: str) -> Iterator[Fields]:
        """The objects of a list; none where it is absent or null."""
        value = self.values.get(key)
        if value is None:
            return
        if not isinstance(value, list):
            raise refuse(self.name_of(key), "a list of objects")
        for index, item in enumerate(value):
            where = f"{self.name_of(key)}[{index}]"
            if not isinstance(item, dict):
                raise refuse(where, "an object")
            yield Fields(item, f"{where}.")


_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0", ""})


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a request. Clients write booleans as ``true``/``false`` or ``1``/``0``; an empty value is none."""

    values: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """The value as it stands; None where it is absent or empty."""
        return self.values.get(name) or None

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.values.get(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise refuse(name, "true, false, 1 or 0")

    def whole(self, name: str, *, least: int = 0) -> int | None:
        """A whole number of at least *least*; None where it is absent. A larger one than MAX_INT counts as that."""
        value = self.text(name)
        if value is None:
            return None
        if not value.removeprefix("-").isascii() or not value.removeprefix("-").isdigit():
            raise refuse(name, "a whole number")
        number = int(value) if len(value) <= 16 else (-MAX_INT if value.startswith("-") else MAX_INT)
        if number < least:
            raise refuse(name, f"a whole number of at least {least}")
        return min(number, MAX_INT)

    def time(self, name: str) -> datetime | None:
        """A time in ISO 8601; None where it is absent."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return parse_iso(value)
        except ValueError:
            raise refuse(name, "a time in ISO 8601, such as 2026-01-02T03:04:05.678Z") from None

    def wait_secs(self) -> int:
        """``waitForFinish``, clamped to 60 s: clients send 999999 and poll again. Source: apify-wire.md §0."""
        return min(self.whole("waitForFinish") or 0, 60)
