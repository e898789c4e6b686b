"""How a reload goes: written by a parent into the folder that it has locked, read by ``greenroom reload``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """
    The *number*-th reload of the server with the process id *pid*, and what it does; its last words once ``is_over``.
    """

    pid: int = 0
    number: int = 0
    step: str = ""
    is_over: bool = True
    has_failed: bool = False


def _path(folder: Path) -> Path:
    return folder / "reload.json"


def read_status(folder: Path) -> ReloadStatus:
    """How the last reload goes, or went; number 0 where there was none."""
    try:
        return ReloadStatus(**json.loads(_path(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return ReloadStatus()


def write_status(folder: Path, status: ReloadStatus) -> None:
    """Tell *status*, as a whole. Raises OSError."""
    partial = _path(folder).with_suffix(".partial")
    partial.write_text(json.dumps(asdict(status)))
    os.replace(partial, _path(folder))  # noqa: PTH105 - as atomic, and shorter
