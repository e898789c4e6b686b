"""No I/O: what callers may change about a run, by compare-and-set: each gives the changed run, None for no change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.api.fields import Fields, refuse
from gateway.core.lifecycle import RunStatus, may_change
from gateway.core.model import AbortWish, Run

MAX_STATUS_MESSAGE_CHARS = 1000
GENERAL_ACCESS = ("FOLLOW_USER_SETTING", "RESTRICTED", "ANYONE_WITH_ID_CAN_READ")


def aborted(run: Run, wish: AbortWish) -> Run | None:
    """
    *run* with the *wish* to end it. A second graceful wish joins the open window, a hard one cancels the window; a run
    that has ended stays as it is. Source: apify-platform.md §3.1.
    """
    if run.status is RunStatus.ABORTING:
        is_harder = not wish.gracefully and (run.abort_wish is None or run.abort_wish.gracefully)
        return replace(run, abort_wish=wish) if is_harder else None
    if not may_change(run.status, RunStatus.ABORTING):
        return None
    return replace(run, status=RunStatus.ABORTING, abort_wish=wish)


def run_update(fields: Fields) -> Callable[[Run], Run | None]:
    """
    The change that the body of an update asks for. A terminal status message is the last word: later ones are ignored.

    Raises InvalidRequest.
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
        if message is not None and not run.is_status_message_terminal:
            changed = replace(
                changed,
                status_message=message[:MAX_STATUS_MESSAGE_CHARS],
                is_status_message_terminal=is_terminal,
            )
        return None if changed == run else changed

    return change
