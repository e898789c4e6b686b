"""No I/O: what a person at the command line asked for and can't have, told in clear lines instead of a traceback."""

from __future__ import annotations

USAGE = 2
FAILED = 1


class Refused(Exception):
    """
    Greenroom can't do what was asked; each line of the message says what is wrong and what to do.

    ``exit_code`` is ``USAGE`` (2) where the command or its settings are mistaken, ``FAILED`` (1) where the world is.
    """

    def __init__(self, *lines: str, exit_code: int = FAILED) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.exit_code = exit_code
