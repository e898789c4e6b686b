"""
Gateways that share runs, a ledger of slots, an autoscaler's routes, and the network between them: all real but the
clock, the network and the Actors, and nothing moves unless it is told to.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count

from proxy.slots_bench import NEW, POOL, ended, route, want

from gateway.core.errors import GreenroomError
from gateway.core.lifecycle import Readiness
from gateway.core.model import Address
from gateway.core.slot_leases import LEASE_SECS, SlotAnswer, SlotLedger, SlotMessage, SlotRequest
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slot_quotas import QuotaBook
from gateway.proxy.slots import Held, SlotDesk
from gateway.state.ports import NumberedChange, RouteEnded, RoutesReset, RunRoute

ADDRESS = Address(host="127.0.0.1", port=1)


@dataclass(eq=False)
class Flight:
    """One request in a run; ``is_outlived``: the ledger has not heard of its gateway for longer than a lease."""

    gateway: Gateway
    run: LiveRun
    is_outlived: bool = False


@dataclass(eq=False)
class Gateway:
    """One gateway process, with its own picture of everything."""

    name: str
    world: World
    desk: SlotDesk = field(init=False)
    book: QuotaBook = field(init=False)
    news: deque[NumberedChange] = field(default_factory=deque)
    waiting: list[Held] = field(default_factory=list)
    flights: list[Flight] = field(default_factory=list)
    call: SlotRequest | None = None
    is_cut_off: bool = False
    heard_at: float = -math.inf
    slept_secs: float = 0.0
    """For so long its machine has slept: the desk's clock does not count it."""
    calls: int = 0
    pokes: int = 0

    def __post_init__(self) -> None:
        self.desk = SlotDesk(
            self.name,
            room_size=100,
            clock=lambda: self.world.now - self.slept_secs,
            chance=lambda: 0.0,
            poke=self._poke,
        )
        self.desk.quota_clock = lambda: self.world.now
        self.book = QuotaBook(self.name, self.desk, poke=self._poke)
        self.desk.on_change = self.book.changed

    def _poke(self) -> None:
        self.pokes += 1

    def request(self) -> None:
        """One request comes: it flies or waits."""
        wanted = want(self.world.limit, generation=NEW)
        run = self.desk.take(wanted)
        if run is not None:
            self._fly(run)
            return
        held = Held(caller=wanted.caller, want=wanted)
        held.settle = lambda outcome: self._settle(held, outcome)
        self.waiting.append(held)
        self.desk.hold(held)

    def _settle(self, held: Held, outcome: LiveRun | GreenroomError) -> None:
        self.waiting.remove(held)
        assert isinstance(outcome, LiveRun), outcome
        self._fly(outcome)

    def _fly(self, run: LiveRun) -> None:
        assert run.route.readiness is Readiness.SERVING, "a request to a run that its gateway has seen drain"
        assert not run.is_gone
        self.flights.append(Flight(self, run))
        self.world.check()

    def finish(self, flight: Flight) -> None:
        """The request has its answer."""
        self.flights.remove(flight)
        self.desk.give_back(flight.run)
        self.world.check()

    def hear(self) -> None:
        """The next change of routes."""
        numbered = self.news.popleft()
        self.desk.apply(numbered.change, numbered.version)

    def step(self) -> None:
        """What its broker does when it has the time."""
        if self.call is not None:
            return
        self.call = self.book.next_call(self.world.now)
        if self.call is not None:
            self.calls += 1
            self.world.send(self, self.call)

    def give_up(self) -> None:
        """Its call has not been answered in time."""
        assert self.call is not None
        call, self.call = self.call, None
        self.book.failed(call, self.world.now)

    def may_use(self, run: LiveRun) -> int:
        """How many slots of *run* it has in use now, or could use before it hears of anybody."""
        quota = run.quota if self.world.now < self.desk.quotas_until else 0
        return max(quota, sum(flight.run is run and not flight.is_outlived for flight in self.flights))


@dataclass(frozen=True, eq=False)
class Letter:
    """Something under way: to the ledger (a call) or to a gateway (an answer to a call, a message)."""

    gateway: Gateway
    words: SlotRequest | SlotMessage | tuple[SlotRequest, SlotAnswer]


@dataclass(eq=False)
class World:
    """One pool. ``limit`` is that of each run."""

    limit: int = 4
    now: float = 1000.0
    ledger: SlotLedger = field(default_factory=SlotLedger)
    server: str = "server0"
    began_at: float = -math.inf
    gateways: list[Gateway] = field(default_factory=list)
    routes: dict[str, RunRoute] = field(default_factory=dict)
    air: list[Letter] = field(default_factory=list)
    version: int = 0
    named_at: dict[tuple[str, str], float] = field(default_factory=dict)
    """When a gateway last told the ledger of a run."""
    numbers: count[int] = field(default_factory=lambda: count(1))

    # gateways

    def add_gateway(self) -> Gateway:
        name = f"gateway{next(self.numbers):03}"
        gateway = Gateway(name, self)
        gateway.news.append(self._all_routes())
        self.gateways.append(gateway)
        return gateway

    def kill(self, gateway: Gateway, *, is_proven: bool) -> None:
        """Its requests end with it, and what it has sent is still under way."""
        self.gateways.remove(gateway)
        if is_proven:
            self.ledger.withdraw(gateway.name)

    # routes

    def _all_routes(self) -> NumberedChange:
        return NumberedChange(version=self.version, change=RoutesReset(routes=tuple(self.routes.values())))

    def _tell(self, change: RunRoute | RouteEnded) -> int:
        self.version += 1
        for gateway in self.gateways:
            gateway.news.append(NumberedChange(version=self.version, change=change))
        return self.version

    def publish(self, one: RunRoute) -> int:
        """The version of the change."""
        self.routes[one.run_id] = one
        return self._tell(one)

    def start_run(self) -> RunRoute:
        one = route(f"run{next(self.numbers)}", Readiness.STARTING, generation=NEW)
        self.publish(one)
        self.ledger.began(one.run_id, server=self.server)
        return one

    def place(self, run_id: str) -> None:
        self.publish(replace(self.routes[run_id], address=ADDRESS))

    def turn(self, run_id: str, readiness: Readiness) -> int:
        return self.publish(replace(self.routes[run_id], address=ADDRESS, readiness=readiness))

    def end_run(self, run_id: str) -> None:
        del self.routes[run_id]
        self._tell(ended(run_id))

    def serving_run(self) -> str:
        """One more run, which everybody has heard of step by step."""
        run_id = self.start_run().run_id
        self.hear_all()
        self.turn(run_id, Readiness.SERVING)
        self.hear_all()
        return run_id

    def hear_all(self) -> None:
        for gateway in self.gateways:
            while gateway.news:
                gateway.hear()

    # the network, and the ledger's server

    def send(self, gateway: Gateway, words: SlotRequest | SlotMessage | tuple[SlotRequest, SlotAnswer]) -> None:
        if not gateway.is_cut_off:
            self.air.append(Letter(gateway, words))

    def arrive(self, letter: Letter) -> None:
        """Also late, or in another order than it was sent."""
        self.air.remove(letter)
        gateway, words = letter.gateway, letter.words
        if isinstance(words, SlotRequest):
            self._settle(gateway, words)
        elif gateway in self.gateways and not gateway.is_cut_off:
            if isinstance(words, SlotMessage):
                gateway.book.told(words, self.now)
            else:
                request, answer = words
                if gateway.call is request:
                    gateway.call = None
                gateway.book.answered(request, answer, self.now)
            self.check()

    def _settle(self, gateway: Gateway, request: SlotRequest) -> None:
        settled = self.ledger.settle(
            request, now=self.now, server=self.server, age_secs=min(self.now - self.began_at, 1e9)
        )
        if settled.answer.epoch:
            gateway.heard_at = self.now
            self.named_at.update({(gateway.name, run_id): self.now for run_id in request.claims})
        self.send(gateway, (request, settled.answer))
        for name, message in settled.messages:
            for other in self.gateways:
                if other.name == name:
                    self.send(other, message)

    def lose_all(self) -> None:
        """The ledger's server is started anew, empty; the leader publishes all routes again."""
        self._new_server(SlotLedger())
        self.began_at = self.now

    def take_over(self, earlier: SlotLedger) -> None:
        """Another server goes on with the copy that it has."""
        self._new_server(copy.deepcopy(earlier))

    def _new_server(self, ledger: SlotLedger) -> None:
        self.ledger, self.server = ledger, f"server{next(self.numbers)}"
        self.air = [letter for letter in self.air if not isinstance(letter.words, SlotRequest)]
        for gateway in self.gateways:
            gateway.news.clear()
            gateway.news.append(self._all_routes())

    # time, and what must hold

    def pass_time(self, secs: float) -> None:
        self.now += secs
        for gateway in self.gateways:
            if self.now - gateway.heard_at >= LEASE_SECS:
                for flight in gateway.flights:
                    flight.is_outlived = True

    def round(self, secs: float = 0.001) -> None:
        """All is well for a moment: everybody does what is to be done, and everything arrives in its order."""
        self.pass_time(secs)
        self.hear_all()
        for gateway in self.gateways:
            if gateway.call is not None and not self.air:
                gateway.give_up()  # what was lost before
            gateway.step()
        while self.air:
            self.arrive(self.air[0])
            for gateway in self.gateways:
                gateway.step()

    def settle_down(self, secs: float = 5.0, every_secs: float = 0.1) -> None:
        """Rounds for so long."""
        for _ in range(round(secs / every_secs)):
            self.round(every_secs)

    def check(self) -> None:
        """No run is above its limit, over all gateways, nor could it be before they hear of each other."""
        used: dict[str, dict[str, int]] = {}
        for gateway in self.gateways:
            runs = {*gateway.desk.routes.all_runs(), *(flight.run for flight in gateway.flights)}
            for run in runs:
                by_gateway = used.setdefault(run.route.run_id, {})
                by_gateway[gateway.name] = by_gateway.get(gateway.name, 0) + gateway.may_use(run)
        for run_id, by_gateway in used.items():
            assert sum(by_gateway.values()) <= self.limit, f"{run_id} above its limit of {self.limit}: {by_gateway}"


def world(limit: int, gateways: int, runs: int = 1) -> World:
    """All is well, everybody knows everybody, and each gateway has had a request in each run."""
    made = World(limit=limit)
    for _ in range(gateways):
        made.add_gateway()
    made.settle_down(1.0)
    for _ in range(runs):
        made.serving_run()
    for gateway in made.gateways:
        gateway.request()
        made.settle_down(1.0)
        assert not gateway.waiting
        for flight in list(gateway.flights):
            gateway.finish(flight)
    made.settle_down(1.0)
    for gateway in made.gateways:
        gateway.calls = gateway.pokes = 0
    return made


__all__ = ["POOL", "Flight", "Gateway", "Letter", "World", "world"]
