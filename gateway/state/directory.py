"""
Which standby host means which Actor: a copy of the records in memory, renewed when they change.

A look-up costs one dict access; hosts that nobody has are never asked for in the records.
"""

from __future__ import annotations

import logging

from gateway.core.errors import InvalidConfig
from gateway.core.ids import standby_label
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, Page, User
from gateway.core.standby import StandbyTarget, standby_target
from gateway.state.ports import Changed, Records, Signals

_log = logging.getLogger(__name__)
_PAGE = 1000


class Directory:
    """Standby targets by DNS label: ``<username>--<actor-name>`` and the Actor's id, both in lower case."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._by_label: dict[str, StandbyTarget] = {}
        self._labels: dict[str, tuple[str, ...]] = {}
        self._actors: dict[str, tuple[Actor, User]] = {}

    def actor(self, actor_id: str) -> tuple[Actor, User] | None:
        """An Actor with its owner."""
        return self._actors.get(actor_id)

    def target(self, label: str) -> StandbyTarget | None:
        """What *label* (lower case) means."""
        return self._by_label.get(label)

    def targets(self) -> list[StandbyTarget]:
        """Every standby target once, by Actor."""
        return [self._by_label[labels[0]] for labels in self._labels.values()]

    async def load(self) -> None:
        """Read all Actors anew; those that are gone are forgotten, also when nothing told of it."""
        users = {user.id: user for user in await self._records.list_users()}
        offset = 0
        missing = set(self._actors)
        while True:
            listing = await self._records.list_actors(None, Page(offset=offset, limit=_PAGE))
            for actor in listing.items:
                if actor.user_id in users:
                    await self._put(actor, users[actor.user_id])
                    missing.discard(actor.id)
            offset += len(listing.items)
            if offset >= listing.total or not listing.items:
                break
        # Asked for singly: a list that shrinks while it is paged may have left somebody out.
        for actor_id in missing:
            await self.renew(actor_id)

    async def follow(self, signals: Signals) -> None:
        """Keep the copy true, for ever; reads everything once it listens, so that no change falls between."""
        async with signals.watch_changes() as changes:
            await self.load()
            async for change in changes:
                await self._take_in(change)

    async def _take_in(self, change: Changed) -> None:
        if change.kind == "actor":
            await self.renew(change.id)
        elif change.kind == "user":
            await self.load()

    async def renew(self, actor_id: str) -> None:
        """Read one Actor anew, and its owner."""
        actor = await self._records.actor(actor_id)
        user = await self._records.user(actor.user_id) if actor else None
        if actor is None or user is None:
            self._drop(actor_id)
        else:
            await self._put(actor, user)

    async def _put(self, actor: Actor, owner: User) -> None:
        """All awaiting comes first: between dropping the old picture and having the new one nobody may look."""
        target = None
        try:
            target = standby_target(actor, owner.username)
            if target.generation is None:
                build = await self._records.build_by_number(actor.id, target.config.build)
                if build is not None and build.status is RunStatus.SUCCEEDED:
                    target = standby_target(actor, owner.username, build)
        except InvalidConfig as error:
            _log.warning("Actor %s has standby settings that no longer hold: %s", actor.id, error.message)
        self._drop(actor.id)
        self._actors[actor.id] = (actor, owner)
        if target is None:
            return
        by_name = standby_label(owner.username, actor.name)
        labels = tuple(label for label in (actor.id.lower(), by_name) if label)
        self._labels[actor.id] = labels
        for label in labels:
            self._by_label[label] = target

    def _drop(self, actor_id: str) -> None:
        self._actors.pop(actor_id, None)
        for label in self._labels.pop(actor_id, ()):
            # When two Actors have swapped names, the first may have taken over the second's label already.
            target = self._by_label.get(label)
            if target is not None and target.actor_id == actor_id:
                del self._by_label[label]
