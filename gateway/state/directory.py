"""
Which standby host means which Actor: a copy of the records in memory, renewed when they change.

A look-up costs one dict access; hosts that nobody has are never asked for in the records. By a label (lower case) are
found ``<username>--<actor-name>``, the Actor's id and its aliases; by their whole name custom domains.

There may be tens of thousands of Actors: of each is kept what requests need and no more, and what is equal in many of
them (settings, owners) is kept once.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from sys import intern

from gateway.core.errors import InvalidConfig
from gateway.core.ids import standby_label
from gateway.core.model import Actor, User
from gateway.core.names import ActorName, NameKind
from gateway.core.standby import Generation, StandbyConfig, StandbyTarget, standby_target
from gateway.state.ports import Changed, Records, Signals

_log = logging.getLogger(__name__)

# The event loop stands still while the rows of a page are taken in, some milliseconds for so many.
_PAGE = 100
_MAX_CONFIGS = 1024
_MAX_RECENT = 128


@dataclass(slots=True)
class _Known:
    """
    One Actor as the records had it at *version*; ``as_of`` is the look that found it so.

    ``target`` is None where its settings don't hold. ``label`` is made of its owner's name and its own, and empty where
    that is too long; ``names`` are the further ones.
    """

    target: StandbyTarget | None
    label: str
    names: tuple[ActorName, ...]
    version: int
    as_of: int

    def labels(self) -> tuple[str, ...]:
        """All that its host may be called below our domain."""
        if self.target is None:
            return ()
        aliases = [name.name for name in self.names if name.kind is NameKind.ALIAS and name.is_verified]
        return tuple(label for label in (self.target.actor_id.lower(), self.label, *aliases) if label)


class Directory:
    """
    Standby targets by their hosts. ``on_domains_changed`` is called after custom domains have come, gone or moved, for
    whoever remembers what they mean.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._by_label: dict[str, StandbyTarget] = {}
        self._known: dict[str, _Known] = {}
        self._warm: dict[str, StandbyTarget] = {}
        self._domains: dict[str, str] = {}  # a custom domain's Actor
        self._claims: dict[str, dict[str, str]] = {}  # name → challenge → Actor
        self._configs: dict[StandbyConfig, StandbyConfig] = {}
        self._recent: OrderedDict[str, tuple[Actor, User]] = OrderedDict()
        # Look-ups overtake each other: what one read that began earlier must not replace what a later one has read.
        self._looks = 0
        self._gone: dict[str, int] = {}  # Actors that are not there, and the look that missed them
        self.on_domains_changed: Callable[[], None] = lambda: None
        self.version = 0
        """Counts what may have changed whom a host means, or on what terms: what was found out stands until then."""

    async def actor(self, actor_id: str) -> tuple[Actor, User] | None:
        """An Actor with its owner; the records are asked unless they were lately, for this one."""
        recent = self._recent.get(actor_id)
        if recent is not None:
            self._recent.move_to_end(actor_id)
            return recent
        look = self._next_look()
        found = await self._look(look, actor_id)
        known = self._known.get(actor_id)
        if found is not None and known is not None and known.as_of == look:  # else it has changed meanwhile
            self._recent[actor_id] = found
            # Who keeps runs warm is asked for at every tick.
            if len(self._recent) > _MAX_RECENT + len(self._warm):
                self._recent.popitem(last=False)
        return found

    def target(self, label: str) -> StandbyTarget | None:
        """What *label* (lower case) means."""
        return self._by_label.get(label)

    def own_label(self, label: str) -> str:
        """The same label as the directory holds it, for those who keep thousands of them; itself where it has none."""
        target = self._by_label.get(label)
        known = self._known.get(target.actor_id) if target is not None else None
        return known.label if known is not None and known.label == label else label

    def targets(self) -> list[StandbyTarget]:
        """Every standby target once, by Actor."""
        return [known.target for known in self._known.values() if known.target is not None]

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

    # Looks

    async def load(self) -> None:
        """
        Look at all Actors anew, and read those that have changed; those that are gone are forgotten, also when nothing
        told of it.
        """
        look = self._next_look()
        users = {user.id: user for user in await self._records.list_users()}
        names: dict[str, list[ActorName]] = {}
        for name in await self._records.list_names(None):
            names.setdefault(name.actor_id, []).append(name)
        last_id = ""
        while page := await self._records.actor_stamps(last_id, _PAGE):
            last_id = page[-1][0]
            changed = [
                actor_id
                for actor_id, version in page
                if not self._stays(look, actor_id, version, users, names.get(actor_id, ()))
            ]
            if changed:
                found = await self._records.actors_by_id(changed)
                owned = [actor for actor in found if actor.user_id in users]
                await self._take_in(look, [(actor, users[actor.user_id], names.get(actor.id, ())) for actor in owned])
        for actor_id in [actor_id for actor_id, known in self._known.items() if known.as_of < look]:
            await self.renew(actor_id)
        self._gone = {actor_id: at for actor_id, at in self._gone.items() if at > look}
        self._recent.clear()  # owners may have changed

    async def renew(self, actor_id: str) -> None:
        """Read one Actor anew, with its owner and names."""
        await self._look(self._next_look(), actor_id)

    async def _look(self, look: int, actor_id: str) -> tuple[Actor, User] | None:
        actor = await self._records.actor(actor_id)
        user = await self._records.user(actor.user_id) if actor else None
        if actor is None or user is None:
            if not self._is_late(look, actor_id):
                self._drop(look, actor_id)
            return None
        await self._take_in(look, [(actor, user, await self._records.list_names(actor_id))])
        return actor, user

    async def follow(self, signals: Signals) -> None:
        """Keep the copy true, for ever; reads everything once it listens, so that no change falls between."""
        async with signals.watch_changes() as changes:
            await self.load()
            async for change in changes:
                await self._hear(change)

    async def _hear(self, change: Changed) -> None:
        if change.kind == "actor":
            await self.renew(change.id)
        elif change.kind == "user":
            await self.load()

    def _next_look(self) -> int:
        self._looks += 1
        return self._looks

    def _is_late(self, look: int, actor_id: str) -> bool:
        known = self._known.get(actor_id)
        return look < (known.as_of if known is not None else self._gone.get(actor_id, 0))

    def _stays(
        self, look: int, actor_id: str, version: int, users: Mapping[str, User], names: Sequence[ActorName]
    ) -> bool:
        """Whether an Actor at *version* need not be read again: it is as it was, or a later look has found it."""
        if self._is_late(look, actor_id):
            return True
        known = self._known.get(actor_id)
        if known is None or known.target is None or known.version != version or known.names != tuple(names):
            return False
        owner = users.get(known.target.owner_id)
        # Builds come and go without a new version of their Actor.
        if owner is None or owner.username != known.target.owner_name or _is_number(known.target.config.build):
            return False
        known.as_of = look
        return True

    # Changes of the picture

    async def _take_in(self, look: int, found: Iterable[tuple[Actor, User, Sequence[ActorName]]]) -> None:
        """All awaiting comes first: between dropping the old picture and having the new one nobody may look."""
        read = [(actor, owner, names, _target_of(actor, owner)) for actor, owner, names in found]
        numbered = {
            (target.actor_id, target.config.build)
            for *_, target in read
            if target is not None and target.generation is None and _is_number(target.config.build)
        }
        builds = await self._records.succeeded_builds(numbered) if numbered else {}
        for actor, owner, names, target in read:
            if not self._is_late(look, actor.id):
                build_id = builds.get((actor.id, target.config.build)) if target is not None else None
                self._put(look, actor, owner, names, target and self._shared(target, build_id))

    def _shared(self, target: StandbyTarget, build_id: str | None) -> StandbyTarget:
        """*target* with its equal parts replaced by those that others have, and with the build that it names."""
        generation = target.generation
        if build_id is not None:
            generation = Generation(build_id=build_id, memory_mbytes=target.config.memory_mbytes)
        if len(self._configs) >= _MAX_CONFIGS:
            self._configs.clear()
        return replace(
            target,
            owner_id=intern(target.owner_id),
            owner_name=intern(target.owner_name),
            config=self._configs.setdefault(target.config, target.config),
            generation=generation,
        )

    def _put(
        self, look: int, actor: Actor, owner: User, names: Sequence[ActorName], target: StandbyTarget | None
    ) -> None:
        now = _Known(target, standby_label(owner.username, actor.name) or "", tuple(names), actor.version, look)
        known = self._known.get(actor.id)
        before = known.names if known is not None else ()
        self._recent.pop(actor.id, None)
        is_same = known is not None and (known.target, known.label, known.names) == (target, now.label, now.names)
        if known is not None and is_same and self._leads_to(actor.id, known):
            known.version, known.as_of = now.version, look
            return
        self.version += 1
        self._forget(actor.id)
        self._known[actor.id] = now
        self._put_domains(actor.id, names)
        if target is not None:
            for label in now.labels():
                self._by_label[label] = target
            if target.config.is_enabled and target.config.min_runs and target.generation is not None:
                self._warm[actor.id] = target
        if _domains(before) != _domains(names):
            self.on_domains_changed()

    def _leads_to(self, actor_id: str, known: _Known) -> bool:
        """Whether no other Actor has taken over a name of this one meanwhile."""
        return all(self._by_label.get(label) is known.target for label in known.labels()) and all(
            self._domains.get(name.name) == actor_id
            for name in known.names
            if name.kind is NameKind.DOMAIN and name.is_verified
        )

    def _put_domains(self, actor_id: str, names: Sequence[ActorName]) -> None:
        for name in names:
            if name.kind is NameKind.DOMAIN:
                if name.is_verified:
                    self._domains[name.name] = actor_id
                else:
                    self._claims.setdefault(name.name, {})[name.challenge] = actor_id

    def _drop(self, look: int, actor_id: str) -> None:
        dropped = self._forget(actor_id)
        self._gone[actor_id] = look
        if dropped is not None and _domains(dropped.names):
            self.on_domains_changed()

    def _forget(self, actor_id: str) -> _Known | None:
        self._recent.pop(actor_id, None)
        self._warm.pop(actor_id, None)
        self._gone.pop(actor_id, None)
        known = self._known.pop(actor_id, None)
        if known is None:
            return None
        self.version += 1
        for name in known.names:
            # As with labels below: somebody else may have it by now.
            if self._domains.get(name.name) == actor_id:
                del self._domains[name.name]
            claims = self._claims.get(name.name, {})
            if claims.pop(name.challenge, None) is not None and not claims:
                del self._claims[name.name]
        for label in known.labels():
            # When two Actors have swapped names, the first may have taken over the second's label already.
            target = self._by_label.get(label)
            if target is not None and target.actor_id == actor_id:
                del self._by_label[label]
        return known


def _target_of(actor: Actor, owner: User) -> StandbyTarget | None:
    try:
        return standby_target(actor, owner.username)
    except InvalidConfig as error:
        _log.warning("Actor %s has standby settings that no longer hold: %s", actor.id, error.message)
        return None


def _is_number(build: str) -> bool:
    """Whether *build* may be the number of a build, such as 0.1.7, instead of a tag."""
    return "." in build


def _domains(names: Sequence[ActorName]) -> set[tuple[str, bool]]:
    return {(name.name, name.is_verified) for name in names if name.kind is NameKind.DOMAIN}
