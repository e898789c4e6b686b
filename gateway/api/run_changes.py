"""No I/O: what callers may change about a run, by compare-and-set: each gives the changed run, None for no change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.api.fields import Fields, refuse
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Run
from gateway.core.run_changes import MAX_STATUS_MESSAGE_CHARS

GENERAL_ACCESS = ("FOLLOW_USER_SETTING", "RESTRICTED", "ANYONE_WITH_ID_CAN_READ")


def run_update(fields: Fields) -> Callable[[Run], Run | None]:
    """
    The change that the body of an update asks for. A terminal status message is the last word: later ones are ignored.

    So is, once the run has ended, what it said on its way there, where the system knows better how it ended: a message
    that comes late counts if it is a last word, or if the run succeeded. Raises InvalidRequest.
    """
    message = fields.text_or_none("statusMessage")
    is_terminal = fields.flag("isStatusMessageTerminal")
    access = fields.text_or_none("generalAccess")
    if access is not None and access not in GENERAL_ACCESS:
        raise refuse("generalAccess", f"one of {', '.join(GENERAL_ACCESS)}")

    def change(run: Run) -> Run | None:
        changed = run
        if access is not None:
            changed = replace(changed, general_access=access)
        counts = is_terminal or not run.status.is_terminal or run.status is RunStatus.SUCCEEDED
        if message is not None and not run.is_status_message_terminal and counts:
            changed = replace(
                changed,
                status_message=message[:MAX_STATUS_MESSAGE_CHARS],
                is_status_message_terminal=is_terminal,
            )
        return None if changed == run else changed

    return change
