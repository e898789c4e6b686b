"""No I/O: what came of each fault: requests, failures, the longest gap, and what must never happen."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from loadtests.chaos_plan import Fault, Kind

Prober = Literal["warm", "wake", "limit", "write"]
# A wake that can't be served within its limit is refused with a reason, while what it needs is gone.
_WAKES_MAY_FAIL = frozenset(Kind) - {Kind.CALM}
# The records have to be there for a write; a killed gateway takes what is in flight on it along.
_WRITES_MAY_FAIL = frozenset(Kind) - {Kind.CALM}


@dataclass(frozen=True)
class Answer:
    """
    One request of a prober: when it was sent and when it was over, by the clock of this process, and how it went.

    *status* None: no answer. *gateway* as the balancer tells it. *problem* what was wrong, empty for a good answer.
    """

    prober: Prober
    sent: float
    over: float
    status: int | None
    problem: str = ""
    gateway: str = ""
    error_type: str = ""
    run: str = ""
    boot: str = ""
    in_flight: int = 0


@dataclass
class Outcome:
    """One fault, from its first moment until everything was well again."""

    fault: Fault
    began: float
    over: float
    healed: float
    killed_gateway: str = ""
    dead_by: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, prober: Prober) -> list[Answer]:
        """The requests of one prober."""
        return [answer for answer in self.answers if answer.prober == prober]

    def failed(self, prober: Prober) -> list[Answer]:
        """Those that did not go well."""
        return [answer for answer in self.of(prober) if answer.problem]

    def in_flight_on_the_dead(self) -> list[Answer]:
        """Failures of requests that the killed gateway had in its hands when it died, all of it by ``dead_by``."""
        return [
            answer
            for answer in self.answers
            if answer.problem and self.killed_gateway and answer.sent <= self.dead_by and self._died_with_it(answer)
        ]

    def _died_with_it(self, answer: Answer) -> bool:
        # The balancer can't always say whose request it was that nobody answered.
        return answer.gateway in ("", self.killed_gateway)

    def failed_beyond_in_flight(self, prober: Prober) -> list[Answer]:
        """Failures that a caller should not have seen: all but those in flight on a gateway that was killed."""
        lost = {id(answer) for answer in self.in_flight_on_the_dead()}
        return [answer for answer in self.failed(prober) if id(answer) not in lost]


def split(answers: Iterable[Answer], outcomes: Sequence[Outcome]) -> None:
    """
    Each answer goes to the fault during which it was under way.

    One that was sent before a fault and ended in it belongs to the fault; what lies between two faults to the earlier.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.began)
    for answer in answers:
        home = ordered[0]
        for outcome in ordered:
            if outcome.began <= answer.over:
                home = outcome
        home.answers.append(answer)


def longest_gap(answers: Sequence[Answer], began: float, over: float) -> float:
    """The longest time between two good answers, the ends counted; *over - began* where there was none."""
    moments = sorted(answer.over for answer in answers if not answer.problem and began <= answer.over <= over)
    edges = [began, *moments, over]
    return max(later - earlier for earlier, later in itertools.pairwise(edges))


def broken(outcome: Outcome) -> list[str]:
    """What must not happen and did, in words; empty where all held."""
    kind = outcome.fault.kind
    wrong = []
    if failed := outcome.failed_beyond_in_flight("warm"):
        wrong.append(f"{len(failed)} warm requests failed, e.g. {failed[0].problem}")
    wakes = outcome.failed_beyond_in_flight("wake")
    if kind not in _WAKES_MAY_FAIL and wakes:
        wrong.append(f"{len(wakes)} wakes failed, e.g. {wakes[0].problem}")
    if untold := [answer for answer in wakes if not _is_told(answer)]:
        wrong.append(f"{len(untold)} wakes failed without a reason, e.g. {untold[0].problem}")
    if kind not in _WRITES_MAY_FAIL and (writes := outcome.failed_beyond_in_flight("write")):
        wrong.append(f"{len(writes)} writes failed, e.g. {writes[0].problem}")
    if over := [answer for answer in outcome.answers if answer.in_flight > 1]:
        wrong.append(f"{len(over)} requests met another one in a run whose limit is 1")
    return wrong


def _is_told(answer: Answer) -> bool:
    """A refusal that its caller can act on: 503 or 504 with a type."""
    return answer.status in (503, 504) and bool(answer.error_type)


def double_starts(answers: Iterable[Answer]) -> list[str]:
    """Runs whose program was started more than once under one run id: each with how often."""
    boots: dict[str, set[str]] = {}
    for answer in answers:
        if answer.run and answer.boot:
            boots.setdefault(answer.run, set()).add(answer.boot)
    return [f"run {run} was started {len(seen)} times" for run, seen in sorted(boots.items()) if len(seen) > 1]


def starts_for_one_wake(wakes: Iterable[tuple[str, float, float]], starts: Iterable[tuple[str, float]]) -> list[str]:
    """
    Wakes for which more than one run was started, in words.

    *wakes* are (Actor, sent, over) of the only caller of that Actor, by the clock of this machine, *starts* (Actor,
    time) of its runs, those apart that failed: for them another start is right.
    """
    began = sorted(starts, key=lambda start: start[1])
    wrong = []
    for actor, sent, over in wakes:
        count = sum(1 for name, at in began if name == actor and sent <= at <= over)
        if count > 1:
            wrong.append(f"{count} runs of {actor} were started for one wake")
    return wrong


def table(outcomes: Sequence[Outcome]) -> str:
    """Each fault in a line: what was asked, what failed, how long nobody was served, what must not have been."""
    rows = [
        (
            "fault",
            "warm",
            "failed",
            "gap s",
            "wakes",
            "failed",
            "limit 1",
            "writes",
            "refused",
            "well after s",
            "broken",
        )
    ]
    for outcome in outcomes:
        warm = outcome.of("warm")
        rows.append(
            (
                f"{outcome.fault.kind} ({outcome.fault.secs:g} s)",
                f"{len(warm)}",
                f"{len(outcome.failed('warm'))}",
                f"{longest_gap(warm, outcome.began, outcome.healed):.2f}",
                f"{len(outcome.of('wake'))}",
                f"{len(outcome.failed('wake'))}",
                f"{len(outcome.of('limit'))}",
                f"{len(outcome.of('write'))}",
                f"{len(outcome.failed('write'))}",
                f"{outcome.healed - outcome.over:.1f}",
                "; ".join([*broken(outcome), *outcome.notes]) or "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
