"""
Rounds of samples in turn over the targets, and the figures made of them.

A ratio is taken within one round, in which both sides met the same machine, and the median of the rounds is the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from loadtests.compare_samples import Sample
from loadtests.compare_targets import NotMeasured, Target
from loadtests.figures import Report, percentile

T = TypeVar("T")


def interleaved(
    targets: Sequence[Target], rounds: int, take: Callable[[Target], T], *, tell: Callable[[str], None] = print
) -> dict[str, list[T]]:
    """
    *rounds* samples of each target by its name, one of each in turn.

    Each round begins with another target, so that none is always the one after the most costly. A target whose sample
    fails is left out from then on, and is not in the result: *tell* hears why.
    """
    taken: dict[str, list[T]] = {target.name: [] for target in targets}
    failed: set[str] = set()
    for number in range(rounds):
        start = number % len(targets) if targets else 0
        for target in [*targets[start:], *targets[:start]]:
            if target.name in failed:
                continue
            try:
                taken[target.name].append(take(target))
            except NotMeasured as error:
                failed.add(target.name)
                tell(f"{target.title} is left out: {error}")
    return {name: samples for name, samples in taken.items() if name not in failed}


def median(values: Sequence[float]) -> float:
    """The middle one; of an even number the lower of the two."""
    return percentile(list(values), 0.5)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return median([one / other for one, other in zip(ours, theirs, strict=True)])


def cpu(samples: Sequence[Sample]) -> list[float]:
    """CPU microseconds for each thing, by round."""
    return [sample.cpu_us for sample in samples]


@dataclass
class Outcome:
    """The report as it grows. ``asked`` are the figures that are wanted; None: all."""

    report: Report = field(default_factory=Report)
    asked: frozenset[str] | None = None

    def wants(self, *names: str) -> bool:
        """Whether any of these figures is asked for."""
        return self.asked is None or not self.asked.isdisjoint(names)

    def add(self, name: str, value: float, unit: str, limit: float | None = None) -> None:
        """Record a figure. One that has no limit stands beside those that do, and goes with them."""
        if limit is None or self.wants(name):
            self.report.add(name, value, unit, limit)

    def ratio(self, name: str, costs: Mapping[str, Sequence[float]], ours: str, theirs: str, limit: float) -> None:
        """The figure *name*: what *ours* costs for each that *theirs* costs; missing where either was not measured."""
        if not self.wants(name):
            return
        gone = [side for side in (ours, theirs) if not costs.get(side)]
        if gone:
            self.miss(f"{' and '.join(gone)} could not be measured", name)
        else:
            self.report.add(name, median_ratio(costs[ours], costs[theirs]), "x", limit)

    def miss(self, why: str, *names: str) -> None:
        """These figures could not be measured."""
        self.report.missing.update({name: why for name in names if self.wants(name)})
