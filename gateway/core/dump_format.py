"""
No I/O: the file that holds a whole Greenroom, as ``greenroom db export`` writes it.

A tar archive whose members follow each other in this order, so that it is written and read as a stream:

    greenroom.json              the manifest: format, schema of the records, when and by what it was made, and a check
                                value of the key that secrets are sealed with; the key itself only where that was
                                asked for
    blobs/<key>                 each blob, as it is
    tables/<table>/<n>.jsonl    rows, one JSON object per line with a member per column, tables after those that they
                                refer to; times are microseconds since 1970, bytes are in Base64
    end.json                    how many rows and blobs there are, and the SHA-256 over names and contents of all
                                members before it; without this one the file is not whole

A reader refuses another ``format``; whoever changes what is above raises it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.core.errors import InvalidRequest

FORMAT = 1
MANIFEST_NAME, END_NAME = "greenroom.json", "end.json"
LONGEST_NOTE_BYTES = 1024 * 1024
"""More than a manifest or an end can have."""

_BLOB = re.compile(r"blobs/(.+)")
_PART = re.compile(r"tables/([a-z_]{1,63})/[0-9]{6,12}\.jsonl")


class BadDump(InvalidRequest):
    """The file is none of ``greenroom db export``, or not whole, or of another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is told of a dump before its contents. ``secret_key`` is in Base64."""

    schema: str
    made_at: str
    greenroom: str
    key_check: str
    secret_key: str | None = None
    format: int = FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What is told of a dump after its contents."""

    sha256: str
    blobs: int
    rows: Mapping[str, int] = field(default_factory=dict)


def blob_name(key: str) -> str:
    """The member that holds a blob."""
    return f"blobs/{key}"


def part_name(table: str, number: int) -> str:
    """The member that holds some rows of *table*; numbers count all parts."""
    return f"tables/{table}/{number:06}.jsonl"


def blob_key(name: str) -> str | None:
    """The blob that the member *name* holds; None for another kind of member."""
    found = _BLOB.fullmatch(name)
    return found[1] if found else None


def part_table(name: str) -> str | None:
    """The table whose rows the member *name* holds; None for another kind of member."""
    found = _PART.fullmatch(name)
    return found[1] if found else None


def dump_note(note: Manifest | End) -> bytes:
    """A manifest or an end, for people to read, too."""
    return json.dumps(asdict(note), indent=2).encode() + b"\n"


def load_manifest(text: bytes) -> Manifest:
    """The manifest that *text* says. Raises BadDump, also for another format."""
    stored = _object(text, MANIFEST_NAME)
    if stored.get("format") != FORMAT:
        raise BadDump(
            f"The file has format {stored.get('format')!r}, and this Greenroom reads format {FORMAT}: "
            "import it with the Greenroom that wrote it."
        )
    words = {name: stored.get(name) for name in ("schema", "made_at", "greenroom", "key_check")}
    key = stored.get("secret_key")
    if not all(isinstance(word, str) for word in words.values()) or not _is_base64(key):
        raise BadDump(f"{MANIFEST_NAME} lacks what belongs into it.")
    return Manifest(**words, secret_key=key)  # type: ignore[arg-type]  # checked above


def load_end(text: bytes) -> End:
    """The end that *text* says. Raises BadDump."""
    stored = _object(text, END_NAME)
    try:
        return End(
            sha256=str(stored["sha256"]),
            blobs=int(stored["blobs"]),
            rows={str(table): int(number) for table, number in stored["rows"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadDump(f"{END_NAME} lacks what belongs into it.") from None


def dump_row(row: Mapping[str, Any]) -> bytes:
    """A line."""
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def load_row(line: bytes, where: str) -> dict[str, Any]:
    """The row of a line. Raises BadDump."""
    return _object(line, where)


def _is_base64(key: object) -> bool:
    try:
        return key is None or (isinstance(key, str) and bool(base64.b64decode(key, validate=True)))
    except ValueError:
        return False


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise BadDump(f"{where} is damaged: a JSON object is expected there.")
    return stored
