"""What the rooms of one gateway process share, handed to each at construction."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gateway.auth import Authenticator
from gateway.builds import Builder
from gateway.core.ids import ID_BYTES, record_id
from gateway.live_logs import Logs
from gateway.name_proofs import NameProofs
from gateway.secret_box import SecretBox
from gateway.settings import Settings
from gateway.state.directory import Directory
from gateway.state.ports import State
from gateway.urls import Urls


def utc_now() -> datetime:
    """The present time, aware."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh 17-character id."""
    return record_id(os.urandom(ID_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The process's own things, among them its one picture of the hosts; ``now`` is UTC, ``clock`` monotonic."""

    settings: Settings
    state: State
    auth: Authenticator
    box: SecretBox
    logs: Logs
    urls: Urls
    builder: Builder
    now: Callable[[], datetime] = field(default=utc_now)
    clock: Callable[[], float] = field(default=time.monotonic)
    new_id: Callable[[], str] = field(default=new_id)
    random_bytes: Callable[[int], bytes] = field(default=os.urandom)
    directory: Directory = field(init=False)
    name_proofs: NameProofs = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Directory(self.state.records))
        object.__setattr__(self, "name_proofs", NameProofs(self.settings))
