"""
The three kinds of state, one port each: the promises that every adapter keeps (``tests/contracts/`` holds them).

- **Records** are durable when answered: after a power cut an acknowledged change is there.
- **Blobs** are replaced atomically and streamed, never wholly in memory.
- **Signals** may be lost at any moment; whoever listens can rebuild what he needs from records.

Only the adapters import a driver. All methods raise StateUnavailable when the store can't be reached.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from gateway.core.demand import DemandReport
from gateway.core.lifecycle import Readiness, RunStatus
from gateway.core.load import Load
from gateway.core.model import (
    Actor,
    ActorTask,
    ActorVersion,
    Address,
    Build,
    DecisionRecord,
    Origin,
    Page,
    Run,
    Storage,
    Token,
    User,
)
from gateway.core.names import ActorName
from gateway.core.standby import Generation, PoolKey
from gateway.core.storages import KeyValueRecord
from gateway.core.trouble import PoolTrouble

if TYPE_CHECKING:  # they answer with this module's Listing
    from gateway.state.slot_ports import SlotLeases
    from gateway.state.storage_ports import Storages

T = TypeVar("T")

FIRST_PAGE = Page()


class StateUnavailable(Exception):
    """A store can't be reached or refuses work; the message says which and what to look at."""


class NoLongerLeader(StateUnavailable):
    """A write that only a leader makes came from one after whom another was given the lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[T]):
    """One page of a list and the number of all that match."""

    items: tuple[T, ...]
    total: int


class Records(Protocol):
    """
    Durable records.

    ``add_*`` raise NameNotUnique where a unique name is taken. ``replace_*`` are compare-and-set: they store the record
    with its version + 1 if the stored version is still the given one, else raise Conflict; they return what was stored.
    Look-ups answer None where nothing is found. Lists are ordered by creation time (then id), newest last or,
    with ``page.desc``, first.
    """

    async def add_user(self, user: User) -> None: ...
    async def user(self, user_id: str) -> User | None: ...
    async def user_by_name(self, username: str) -> User | None:
        """Case-insensitive, and by the DNS-friendly form: ``jane.doe`` and ``jane-doe`` can't both exist."""
        ...

    async def list_users(self) -> Sequence[User]: ...

    async def add_token(self, token: Token) -> None: ...
    async def token_by_hash(self, token_hash: str) -> Token | None: ...
    async def list_tokens(self, user_id: str) -> Sequence[Token]: ...
    async def delete_token(self, token_id: str) -> None: ...

    async def add_actor(self, actor: Actor) -> None: ...
    async def actor(self, actor_id: str) -> Actor | None: ...
    async def actor_by_name(self, user_id: str, name: str) -> Actor | None:
        """Case-insensitive."""
        ...

    async def list_actors(self, user_id: str | None, page: Page) -> Listing[Actor]:
        """Actors of one user, or of all (None)."""
        ...

    async def actor_stamps(self, after: str, limit: int) -> Sequence[tuple[str, int]]:
        """Id and version of the first *limit* Actors whose ids come after *after*, in the order of their ids."""
        ...

    async def actors_by_id(self, actor_ids: Collection[str]) -> Sequence[Actor]:
        """Those that there are, in no order; one look for all."""
        ...

    async def replace_actor(self, actor: Actor) -> Actor: ...
    async def delete_actor(self, actor_id: str) -> None:
        """With its names, versions, builds, tasks and decisions; its runs stay."""
        ...

    async def add_name(self, name: ActorName) -> None:
        """Of all claims of one name, over all Actors, at most one is verified; of one Actor's there is only one."""
        ...

    async def list_names(self, actor_id: str | None) -> Sequence[ActorName]:
        """The further names of one Actor, or of all (None)."""
        ...

    async def claims_of(self, name: str) -> Sequence[ActorName]:
        """Whoever has or wants this name."""
        ...

    async def verify_name(self, name_id: str, at: datetime) -> ActorName:
        """From now on it routes. Raises NameNotUnique while another claim of the same name does, RecordNotFound."""
        ...

    async def delete_name(self, name_id: str) -> None: ...

    async def put_version(self, version: ActorVersion) -> None:
        """Create or overwrite one version of an Actor."""
        ...

    async def actor_version(self, actor_id: str, version_number: str) -> ActorVersion | None: ...
    async def list_versions(self, actor_id: str) -> Sequence[ActorVersion]: ...
    async def delete_version(self, actor_id: str, version_number: str) -> None: ...

    async def add_build(self, build: Build) -> Build:
        """Store a build whose ``build_number`` is empty under the next number of its version, e.g. ``0.1.7``."""
        ...

    async def build(self, build_id: str) -> Build | None: ...
    async def build_by_number(self, actor_id: str, build_number: str) -> Build | None: ...
    async def succeeded_builds(self, numbers: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        """The ids of those builds that have succeeded, of the ones named by Actor and number; one look for all."""
        ...

    async def list_builds(self, user_id: str | None, actor_id: str | None, page: Page) -> Listing[Build]: ...
    async def active_builds(self) -> Sequence[Build]:
        """All builds that have not ended."""
        ...

    async def replace_build(self, build: Build) -> Build: ...
    async def finish_build(self, build: Build, actor: Actor) -> Build:
        """Both replaced at once: nobody sees a build that has succeeded and a tag that does not point to it yet."""
        ...

    async def delete_build(self, build_id: str) -> None: ...

    async def add_task(self, task: ActorTask) -> None: ...
    async def task(self, task_id: str) -> ActorTask | None: ...

    async def add_run(
        self, run: Run, token: Token, storages: Iterable[Storage], contents: Iterable[KeyValueRecord] = ()
    ) -> None:
        """
        A run, its own token, its default storages and what its key-value stores hold from the start: all or none.

        The stores' ``stats`` count *contents*, which are of stores among *storages*.
        """
        ...

    async def run(self, run_id: str) -> Run | None: ...
    async def run_by_live_view_label(self, label: str) -> Run | None: ...
    async def list_runs(
        self,
        *,
        user_id: str | None = None,
        actor_id: str | None = None,
        statuses: frozenset[RunStatus] = frozenset(),
        origin: Origin | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        page: Page = FIRST_PAGE,
    ) -> Listing[Run]: ...
    async def active_runs(self) -> Sequence[Run]:
        """All runs that have not ended."""
        ...

    async def replace_run(self, run: Run) -> Run:
        """A run whose new status is terminal takes its tokens with it, in the same write."""
        ...

    async def delete_run(self, run_id: str) -> None: ...

    async def add_decisions(self, decisions: Sequence[DecisionRecord]) -> None:
        """All of them, in one write."""
        ...

    async def list_decisions(self, pool_id: str, page: Page) -> Listing[DecisionRecord]: ...
    async def forget_decisions(self, before: datetime, keep_per_pool: int) -> int:
        """Those made *before*, and of each pool all but the newest *keep_per_pool* (1 or more); how many they were."""
        ...


class Blobs(Protocol):
    """
    Large values by key; keys are relative paths of ``[A-Za-z0-9._/-]`` that never leave the store.

    A reader sees the old value or the new one, never a mixture. ``open`` and ``size`` answer None for no such blob.
    """

    async def put(self, key: str, chunks: AsyncIterator[bytes] | bytes) -> None:
        """Store or replace *key* atomically; when it returns, the value survives a crash."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The whole of a blob that is known to be small."""
        ...

    async def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes] | None:
        """Its bytes from *start* up to *end* (excluded), in chunks."""
        ...

    async def size(self, key: str) -> int | None: ...
    async def delete(self, key: str) -> None:
        """Delete *key*; one that is not there is fine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRoute:
    """
    Where a live run is and whether it takes requests, as the supervisor publishes it to all gateways.

    ``pool`` is None for runs that only have a live view. ``address`` is None until the run has been placed.
    ``start_secs`` (until its process was there) and ``ready_secs`` (then until it served) are known once it serves.
    ``is_overloaded``: new requests better go to another run, as long as one has room. ``is_ending``: somebody has asked
    for its end, or its time is over, so that its sockets are not waited for.
    """

    run_id: str
    actor_id: str
    user_id: str
    live_view_label: str
    readiness: Readiness
    pool: PoolKey | None = None
    generation: Generation | None = None
    address: Address | None = None
    start_secs: float | None = None
    ready_secs: float | None = None
    is_overloaded: bool = False
    is_ending: bool = False

    @property
    def is_new(self) -> bool:
        """Whether it has not been started anywhere yet, so that nobody can have used it."""
        return self.address is None and self.start_secs is None and self.readiness is Readiness.STARTING


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteEnded:
    """
    A run is gone. ``error_type``, ``message`` and ``log_tail`` tell those who waited for it why (the tail only to its
    owner); ``error_type`` is None for an end that nobody needs to hear of, such as a wind-down.
    """

    run_id: str
    live_view_label: str
    error_type: str | None = None
    message: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutesReset:
    """The listener is new or has missed changes: forget all routes, *routes* are the present ones."""

    routes: tuple[RunRoute, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBlocked:
    """
    The autoscaler can't start runs for a pool now: those who wait for one hear why at once.

    ``retry_after_secs``: so do those who come for so long, or until PoolFreed, whose requests no run that there is can
    take; None: it speaks only to those that wait at this moment. ``generation``: only to those who want a run of it.
    ``log_tail`` is for owners alone; ``facts`` go into the error's data. ``is_late``: nobody is refused; only those
    hear it whose time to wait is over.
    """

    pool: PoolKey
    message: str
    error_type: str = "standby-run-failed"
    retry_after_secs: float | None = None
    generation: Generation | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    log_tail: tuple[str, ...] = ()
    is_late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFreed:
    """What PoolBlocked said of this pool is no longer so."""

    pool: PoolKey


RouteChange = RunRoute | RouteEnded | RoutesReset | PoolBlocked | PoolFreed


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedChange:
    """A route change with its version; versions grow by one with each change and start anew with a reset."""

    version: int
    change: RouteChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """
    Records of this kind changed; *id* names the one (an Actor's, a user's, a run's, a token's).

    ``run-token`` is the token of the run with that id, which ends with it.
    """

    kind: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """Frames for the system-events sockets of one run; ``ends``: the run is over, close them."""

    run_id: str
    frames: tuple[str, ...] = ()
    ends: bool = False


LEADER = "autoscaler"
"""The lease whose holder alone publishes routes, loads and troubles."""


class Signals(Protocol):
    """
    Messages and leases between the processes of one Greenroom; cheap, fast and allowed to be lost.

    Subscriptions are entered before they return, so nothing sent afterwards is missed; a subscriber that falls behind
    its bound gets a RoutesReset (routes) or loses the oldest messages (all else). A subscriber of routes or changes
    whose store was lost meanwhile gets StateUnavailable, and subscribes anew; one of events just misses what was sent.

    Each process has an instance of its own. Once it has taken the lease LEADER, what only a leader writes (routes,
    pools that are blocked or freed, loads, troubles) carries its fencing token, and is refused by NoLongerLeader when a
    newer one has been given.
    """

    async def put_route(self, route: RunRoute) -> int:
        """Publish *route* in place of an older one of the same run; its version."""
        ...

    async def end_route(self, ended: RouteEnded) -> int: ...
    async def publish_routes(self) -> int:
        """
        From now on the routes that this instance has put since it leads, and not ended, are all that there are; the
        version.

        A new leader says so once it has taken over every run, and before that nobody hears of a route where a store has
        none from an earlier leader. Whoever watches gets a RoutesReset. Should the store lose them, an instance that
        leads publishes them again by itself, at the latest when it renews its lease.
        """
        ...

    async def block_pool(self, blocked: PoolBlocked) -> None: ...
    async def free_pool(self, freed: PoolFreed) -> None: ...
    def watch_routes(self) -> AbstractAsyncContextManager[AsyncIterator[NumberedChange]]:
        """Begins with a RoutesReset, as soon as a leader has published all routes."""
        ...

    async def routes(self) -> Sequence[RunRoute]:
        """Those that there are now; none as long as no leader has published all."""
        ...

    async def report_demand(self, report: DemandReport, *, ttl_secs: float, is_poke: bool = False) -> None:
        """Replace this gateway's report; it counts for *ttl_secs*. A *poke* makes the autoscaler look at once."""
        ...

    async def forget_demand(self, gateway_id: str) -> None:
        """This gateway is gone for good and has nothing in flight."""
        ...

    async def demand_reports(self) -> Sequence[DemandReport]:
        """The reports that still count."""
        ...

    async def wait_for_poke(self, timeout_secs: float) -> bool:
        """True as soon as a poke has come since the last call, False after *timeout_secs* without one."""
        ...

    async def poke(self) -> None:
        """Make the autoscaler look at once, for another reason than demand."""
        ...

    async def wait_for_report(self, timeout_secs: float) -> bool:
        """True when any report arrives after this call began, False after *timeout_secs* without one."""
        ...

    async def changed(self, change: Changed) -> None: ...
    def watch_changes(self) -> AbstractAsyncContextManager[AsyncIterator[Changed]]: ...

    async def send_event(self, event: RunEvent) -> int:
        """Send frames to a run's events sockets; the number of sockets that were connected when it was sent."""
        ...

    def watch_events(self, run_id: str) -> AbstractAsyncContextManager[AsyncIterator[RunEvent]]:
        """While it is entered, the run counts as connected."""
        ...

    async def connected_runs(self) -> frozenset[str]:
        """The runs of which at least one events socket is connected: who a frame for all is worth making for."""
        ...

    async def report_load(self, loads: Mapping[str, Load], *, ttl_secs: float) -> None:
        """Replace what is known of these runs' load; it counts for *ttl_secs*."""
        ...

    async def loads(self) -> Mapping[str, Load]:
        """The load of each run of which it still counts."""
        ...

    async def report_troubles(self, troubles: Sequence[PoolTrouble], *, ttl_secs: float) -> None:
        """Replace what is known of all pools in quarantine; it counts for *ttl_secs*."""
        ...

    async def troubles(self) -> Sequence[PoolTrouble]:
        """The pools in quarantine, as far as what was said of them still counts."""
        ...

    async def lead(self, name: str, holder: str, *, ttl_secs: float) -> int | None:
        """Take or renew the lease *name*: its fencing token, or None while somebody else holds it."""
        ...

    async def resign(self, name: str, holder: str) -> None: ...

    @property
    def slots(self) -> SlotLeases:
        """Slots of runs, where several gateways share them."""
        ...

    async def announce(self, kind: str, process_id: str, facts: Mapping[str, str], *, ttl_secs: float) -> None:
        """
        A process of this *kind* (such as "gateway") is there, for *ttl_secs*; *facts* replace those that it told
        before.
        """
        ...

    async def withdraw(self, kind: str, process_id: str) -> None:
        """It is gone; one that was not there is fine."""
        ...

    async def announced(self, kind: str) -> Mapping[str, Mapping[str, str]]:
        """The processes of this kind whose announcement still counts, with their facts."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why the store can't be reached, as far as is known; None while all is well."""
        ...

    def commands_issued(self) -> Mapping[str, int]:
        """How many commands this process has sent to a server since it began, by their names."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class State:
    """The stores that a process works with; records and storages are two ports of one database."""

    records: Records
    blobs: Blobs
    signals: Signals
    storages: Storages
