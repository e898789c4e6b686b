"""No I/O: takes terminal colours and cursor moves out of a log that comes in pieces of any size."""

from __future__ import annotations

import re

from gateway.live_logs import strip_ansi

_BEGUN = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*)?\Z")
_MAX_SEQUENCE_BYTES = 64


class AnsiStripper:
    """Pieces in, clean pieces out: a sequence that is cut between two pieces is removed too."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What is surely clean of all that came so far."""
        text = self._held + piece
        begun = _BEGUN.search(text, max(0, len(text) - _MAX_SEQUENCE_BYTES))
        # Something longer is no sequence that a terminal would know, and is not held back for ever.
        cut = begun.start() if begun is not None else len(text)
        self._held = text[cut:]
        return strip_ansi(text[:cut])

    def end(self) -> bytes:
        """What was held back: the log ends in the middle of a sequence."""
        return self._held
