"""
Which standby host means which Actor: a copy of the records in memory, renewed when they change.

A look-up costs one dict access; hosts that nobody has are never asked for in the records. By a label (lower case) are
found ``<username>--<actor-name>``, the Actor's id and its aliases; by their whole name custom domains.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.core.errors import InvalidConfig
from gateway.core.ids import standby_label
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, Page, User
from gateway.core.names import ActorName, NameKind
from gateway.core.standby import StandbyTarget, standby_target
from gateway.state.ports import Changed, Records, Signals

_log = logging.getLogger(__name__)
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class _Known:
    """One Actor as the records have it."""

    actor: Actor
    owner: User
    names: tuple[ActorName, ...]


class Directory:
    """
    Standby targets by their hosts. ``on_domains_changed`` is called after custom domains have come, gone or moved, for
    whoever remembers what they mean.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._by_label: dict[str, StandbyTarget] = {}
        self._labels: dict[str, tuple[str, ...]] = {}
        self._actors: dict[str, _Known] = {}
        self._warm: dict[str, StandbyTarget] = {}
        self._domains: dict[str, str] = {}  # a custom domain's Actor
        self._claims: dict[str, dict[str, str]] = {}  # name → challenge → Actor
        # Look-ups overtake each other: what one read that began earlier must not replace what a later one has read.
        self._looks = 0
        self._as_of: dict[str, int] = {}
        self.on_domains_changed: Callable[[], None] = lambda: None

    def actor(self, actor_id: str) -> tuple[Actor, User] | None:
        """An Actor with its owner."""
        known = self._actors.get(actor_id)
        return (known.actor, known.owner) if known else None

    def target(self, label: str) -> StandbyTarget | None:
        """What *label* (lower case) means."""
        return self._by_label.get(label)

    def targets(self) -> list[StandbyTarget]:
        """Every standby target once, by Actor."""
        return [self._by_label[labels[0]] for labels in self._labels.values()]

    def warm_targets(self) -> list[StandbyTarget]:
        """
        Those of ``targets()`` that keep runs although nobody asks (``minRuns``), and have a build to run.

        Costs what they are, however many others there are.
        """
        return list(self._warm.values())

    def label_of_domain(self, name: str) -> str | None:
        """The label of the Actor that has the custom domain *name* (lower case), one that no change of names moves."""
        actor_id = self._domains.get(name)
        return actor_id.lower() if actor_id else None

    def is_claimed(self, name: str) -> bool:
        """Whether somebody wants the custom domain *name* who has not proven yet that it is his."""
        return name in self._claims

    def is_challenge(self, name: str, challenge: str) -> bool:
        """Whether *challenge* is that of somebody who wants the custom domain *name*."""
        return challenge in self._claims.get(name, {})

    async def load(self) -> None:
        """Read all Actors anew; those that are gone are forgotten, also when nothing told of it."""
        look = self._next_look()
        users = {user.id: user for user in await self._records.list_users()}
        names: dict[str, list[ActorName]] = {}
        for name in await self._records.list_names(None):
            names.setdefault(name.actor_id, []).append(name)
        offset = 0
        missing = set(self._actors)
        while True:
            listing = await self._records.list_actors(None, Page(offset=offset, limit=_PAGE))
            for actor in listing.items:
                if actor.user_id in users:
                    await self._put(look, actor, users[actor.user_id], names.get(actor.id, ()))
                    missing.discard(actor.id)
            offset += len(listing.items)
            if offset >= listing.total or not listing.items:
                break
        # Asked for singly: a list that shrinks while it is paged may have left somebody out.
        for actor_id in missing:
            await self.renew(actor_id)
        self._as_of = {actor_id: at for actor_id, at in self._as_of.items() if actor_id in self._actors or at > look}

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
        """Read one Actor anew, with its owner and names."""
        look = self._next_look()
        actor = await self._records.actor(actor_id)
        user = await self._records.user(actor.user_id) if actor else None
        if actor is None or user is None:
            self._drop(look, actor_id)
        else:
            await self._put(look, actor, user, await self._records.list_names(actor_id))

    def _next_look(self) -> int:
        self._looks += 1
        return self._looks

    def _is_late(self, look: int, actor_id: str) -> bool:
        is_late = look < self._as_of.get(actor_id, 0)
        if not is_late:
            self._as_of[actor_id] = look
        return is_late

    async def _put(self, look: int, actor: Actor, owner: User, names: Sequence[ActorName]) -> None:
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
        if self._is_late(look, actor.id):
            return
        before = self._actors.get(actor.id)
        self._forget(actor.id)
        self._actors[actor.id] = _Known(actor, owner, tuple(names))
        self._put_domains(actor.id, names)
        if target is not None:
            self._put_labels(actor, owner, names, target)
        if _domains(before.names if before else ()) != _domains(names):
            self.on_domains_changed()

    def _put_labels(self, actor: Actor, owner: User, names: Sequence[ActorName], target: StandbyTarget) -> None:
        aliases = [name.name for name in names if name.kind is NameKind.ALIAS and name.is_verified]
        by_name = standby_label(owner.username, actor.name)
        labels = tuple(label for label in (actor.id.lower(), by_name, *aliases) if label)
        self._labels[actor.id] = labels
        if target.config.is_enabled and target.config.min_runs and target.generation is not None:
            self._warm[actor.id] = target
        for label in labels:
            self._by_label[label] = target

    def _put_domains(self, actor_id: str, names: Sequence[ActorName]) -> None:
        for name in names:
            if name.kind is NameKind.DOMAIN:
                if name.is_verified:
                    self._domains[name.name] = actor_id
                else:
                    self._claims.setdefault(name.name, {})[name.challenge] = actor_id

    def _drop(self, look: int, actor_id: str) -> None:
        if self._is_late(look, actor_id):
            return
        dropped = self._actors.get(actor_id)
        self._forget(actor_id)
        if dropped is not None and _domains(dropped.names):
            self.on_domains_changed()

    def _forget(self, actor_id: str) -> None:
        known = self._actors.pop(actor_id, None)
        self._warm.pop(actor_id, None)
        for name in known.names if known else ():
            # As with labels below: somebody else may have it by now.
            if self._domains.get(name.name) == actor_id:
                del self._domains[name.name]
            claims = self._claims.get(name.name, {})
            if claims.pop(name.challenge, None) is not None and not claims:
                del self._claims[name.name]
        for label in self._labels.pop(actor_id, ()):
            # When two Actors have swapped names, the first may have taken over the second's label already.
            target = self._by_label.get(label)
            if target is not None and target.actor_id == actor_id:
                del self._by_label[label]


def _domains(names: Sequence[ActorName]) -> set[tuple[str, bool]]:
    return {(name.name, name.is_verified) for name in names if name.kind is NameKind.DOMAIN}
