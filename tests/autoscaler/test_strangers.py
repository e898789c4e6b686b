"""Whose Actors may run where: other users' only where they are kept apart, or trusted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from autoscaler.strangers import Strangers
from gateway.core.errors import LaunchError
from gateway.core.model import User
from gateway.settings import Settings


def user(*, is_admin: bool) -> User:
    return User(id="u", username="jane", is_admin=is_admin, created_at=datetime(2026, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize("launcher", ["process", "swarm", "docker"])
async def test_strangers_are_refused_where_nothing_keeps_them_apart(launcher: str, tmp_path: Path) -> None:
    """The administrator may, others may where they are trusted; else the message says what to do."""
    settings = Settings(data=tmp_path, launcher=launcher, docker_subnet="10.9.0.0/24", run_host="10.9.0.1")
    await Strangers(launcher, settings, 8010).refuse(user(is_admin=True), "local/hello")
    with pytest.raises(LaunchError, match=r"jane/hello.*--trust-users|network-rules"):
        await Strangers(launcher, settings, 8010).refuse(user(is_admin=False), "jane/hello")
    trusting = settings.model_copy(update={"trust_users": True})
    await Strangers(launcher, trusting, 8010).refuse(user(is_admin=False), "jane/hello")
