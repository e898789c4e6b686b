"""No I/O: whether an error is something that a person can mend, and then its words instead of a traceback."""

from __future__ import annotations

from gateway.core.errors import GreenroomError
from gateway.refusals import Refused
from gateway.state.ports import StateUnavailable


def reasons_in_words(error: Exception) -> list[str] | None:
    """What a person can mend, without a traceback: a store, a file, the launcher. None where any of it is a bug."""
    if isinstance(error, ExceptionGroup):
        found = [reasons_in_words(inner) for inner in error.exceptions]
        return None if None in found else [reason for reasons in found for reason in reasons or ()]
    if isinstance(error, Refused | GreenroomError | StateUnavailable | OSError):
        return [str(error)]
    return None
