"""Whose programs may run here: other users' than the administrator's only where they are kept apart, or trusted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.core.errors import LaunchError
from gateway.core.model import Build, User
from gateway.installed_rules import strangers_problem
from gateway.settings import Settings
from gateway.state.ports import Records


@dataclass(frozen=True, slots=True)
class Strangers:
    """The rule for one *launcher* (its name), of a Greenroom that runs reach at *port*."""

    launcher: str
    settings: Settings
    port: int

    async def refuse(self, owner: User, what: str) -> None:
        """Raises LaunchError where *what*, a thing of *owner*'s, may not run; the message says what to do."""
        if owner.is_admin or self.settings.trust_users:
            return
        if self.launcher == "process":
            raise LaunchError(
                f"The process launcher isolates nothing, so Actors of users other than the administrator "
                f"(this one is {what}) run only when Greenroom is started with --trust-users."
            )
        if self.launcher == "swarm":
            raise LaunchError(
                f"Greenroom can't tell whether the nodes of the Swarm close their networks to runs ('greenroom "
                f"network-rules --nodes' prints what does so), so Actors of users other than the administrator (this "
                f"one is {what}) run only when it is started with --trust-users."
            )
        if self.launcher == "docker":
            # Asked anew each time: root may install the rules, or remove them, while Greenroom serves.
            why = await asyncio.to_thread(strangers_problem, self.settings, self.port)
            if why is not None:
                raise LaunchError(f"{what} may not run: {why}")

    async def refuse_build(self, build: Build, records: Records) -> None:
        """The same for a build, whose steps are programs as well. Raises LaunchError."""
        actor = await records.actor(build.actor_id)
        owner = await records.user(actor.user_id) if actor else None
        if actor is None or owner is None:
            raise LaunchError("The Actor was deleted before its build began.")
        await self.refuse(owner, f"{owner.username}/{actor.name}")
