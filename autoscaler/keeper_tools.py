"""What the keepers of all runs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from autoscaler.policy.quarantine import RunNews
from gateway.core.lifecycle import RunStatus, StartOutcome
from gateway.core.standby import PoolKey
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.settings import Settings
from gateway.state.ports import State
from gateway.urls import Urls


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperTools:
    """
    What all keepers share. ``on_start`` is told how each start of a pool's run went, ``on_end`` each run's last status,
    ``on_freeze`` and ``on_resume`` each time that a run begins to stand still, and goes on.

    ``on_news`` hears what becomes of each run of a pool.

    ``now`` is aware UTC; ``cores`` are those of the machine that process runs share.
    """

    settings: Settings
    state: State
    logs: Logs
    box: SecretBox
    urls: Urls
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    cores: int
    on_start: Callable[[PoolKey, StartOutcome], None]
    on_end: Callable[[RunStatus], None]
    on_news: Callable[[RunNews], None] = lambda _: None
    on_freeze: Callable[[], None] = lambda: None
    on_resume: Callable[[], None] = lambda: None
