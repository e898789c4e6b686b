"""Which faults come, and what is made of what the probers saw."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.chaos_outcome import (
    Answer,
    Outcome,
    broken,
    double_starts,
    longest_gap,
    split,
    starts_for_one_wake,
    table,
)
from loadtests.chaos_plan import GATEWAYS, Fault, Kind, plan


def planned(seed: int, *, is_quick: bool) -> list[Fault]:
    return plan(random.Random(seed).random, outage_secs=10, is_quick=is_quick)


@given(st.integers(), st.booleans())
def test_a_plan_has_each_of_its_kinds_once_and_calm_first(seed, is_quick):
    """Whatever the seed: nothing is left out, nothing comes twice, and gateways that are aimed at exist."""
    faults = planned(seed, is_quick=is_quick)
    kinds = [fault.kind for fault in faults]
    assert kinds[0] is Kind.CALM
    assert len(set(kinds)) == len(kinds) == (12 if is_quick else len(Kind))
    assert {fault.gateway for fault in faults} <= {None, *GATEWAYS}
    assert all(0 <= fault.quiet_secs < 2 for fault in faults)


def test_a_seed_is_a_plan():
    """The same seed has the same plan, another one another."""
    assert planned(1, is_quick=False) == planned(1, is_quick=False)
    assert planned(1, is_quick=False) != planned(2, is_quick=False)


def test_outages_are_as_long_as_was_asked():
    """What is gone is gone for the plan's time; a leader is paused for longer than its lease in any plan."""
    secs = {fault.kind: fault.secs for fault in plan(random.Random(3).random, outage_secs=60, is_quick=False)}
    assert secs[Kind.REDIS_GONE] == secs[Kind.RECORDS_GONE] == secs[Kind.GATEWAY_CUT_OFF] == 60
    assert secs[Kind.LEADER_PAUSED] == 15


def answer(prober="warm", sent=0.0, over=1.0, status=200, problem="", **facts) -> Answer:
    return Answer(prober, sent, over, status, problem, **facts)


def on_gateway(number: int, *, sent: float) -> Answer:
    return answer(sent=sent, over=10.2, status=None, problem="cut", gateway=f"gateway-{number}")


def outcome(kind=Kind.CALM, *answers: Answer, began=10.0, killed="") -> Outcome:
    return Outcome(Fault(kind, 5, 0), began, began + 5, began + 6, killed, began + 0.05, list(answers))


REFUSED = {"status": 503, "problem": "503 no-run", "error_type": "no-run"}


@pytest.mark.parametrize(
    ("happened", "says"),
    [
        pytest.param(outcome(Kind.REDIS_GONE, answer(problem="reset")), "1 warm requests failed", id="warm"),
        pytest.param(outcome(Kind.REDIS_GONE, answer("wake", **REFUSED)), None, id="a wake that is told why"),
        pytest.param(outcome(Kind.CALM, answer("wake", **REFUSED)), "1 wakes failed", id="a wake while all is well"),
        pytest.param(
            outcome(Kind.REDIS_GONE, answer("wake", status=None, problem="no answer")),
            "without a reason",
            id="a wake that hears nothing",
        ),
        pytest.param(
            outcome(Kind.REDIS_GONE, answer("wake", status=502, problem="502", error_type="x")),
            "without a reason",
            id="a wake that is answered 502",
        ),
        pytest.param(outcome(Kind.RECORDS_GONE, answer("write", status=503, problem="503")), None, id="a write"),
        pytest.param(outcome(Kind.CALM, answer("write", status=503, problem="503")), "1 writes", id="a write in calm"),
        pytest.param(outcome(Kind.REDIS_GONE, answer("limit", in_flight=2)), "whose limit is 1", id="two at once"),
        pytest.param(outcome(Kind.REDIS_GONE, answer("limit", in_flight=1)), None, id="one at once"),
        pytest.param(
            outcome(Kind.GATEWAY_KILLED, on_gateway(1, sent=9.9), killed="gateway-1"),
            None,
            id="in flight on the dead",
        ),
        pytest.param(
            outcome(Kind.GATEWAY_KILLED, on_gateway(2, sent=9.9), killed="gateway-1"),
            "1 warm requests failed",
            id="in flight on another",
        ),
        pytest.param(
            outcome(Kind.GATEWAY_KILLED, on_gateway(1, sent=10.1), killed="gateway-1"),
            "1 warm requests failed",
            id="sent to the dead afterwards",
        ),
    ],
)  # fmt: skip
def test_broken_invariants_are_found(happened, says):
    """What may fail in a fault is no breach of it, and all else is."""
    found = broken(happened)
    assert (found == []) if says is None else any(says in line for line in found), found


def test_answers_belong_to_the_fault_that_they_met():
    """One sent before a fault and ended in it is the fault's; one between two faults the earlier one's."""
    calm, fault = outcome(began=0.0), outcome(Kind.REDIS_GONE, began=10.0)
    split([answer(sent=9, over=9.5), answer(sent=9, over=10.5), answer(sent=30, over=31)], [fault, calm])
    assert [one.over for one in calm.answers] == [9.5]
    assert [one.over for one in fault.answers] == [10.5, 31]


@pytest.mark.parametrize(
    ("answers", "gap"),
    [
        pytest.param([], 10, id="none at all"),
        pytest.param([answer(over=4), answer(over=5)], 5, id="until the end"),
        pytest.param([answer(over=1), answer(over=8)], 7, id="between two"),
        pytest.param([answer(over=1), answer(over=4, problem="x"), answer(over=8)], 7, id="a failure ends no gap"),
        pytest.param([answer(over=-1), answer(over=6)], 6, id="one before is none"),
    ],
)
def test_the_longest_gap_is_between_good_answers(answers, gap):
    """How long nobody was served, the ends of the fault counted."""
    assert longest_gap(answers, 0, 10) == gap


def test_double_starts_are_seen_by_their_boots():
    """One run id, two starts of its program."""
    seen = [answer(run="a", boot="1"), answer(run="a", boot="1"), answer(run="b", boot="1"), answer(run="b", boot="2")]
    assert double_starts(seen) == ["run b was started 2 times"]


@pytest.mark.parametrize(
    ("starts", "wrong"),
    [
        pytest.param([("x", 1.5)], 0, id="one"),
        pytest.param([("x", 1.5), ("x", 1.6)], 1, id="two"),
        pytest.param([("x", 1.5), ("y", 1.6)], 0, id="another Actor's"),
        pytest.param([("x", 1.5), ("x", 2.5)], 0, id="after it was answered"),
    ],
)
def test_a_wake_starts_one_run(starts, wrong):
    """Two runs within one wait of the only caller are one too many."""
    assert len(starts_for_one_wake([("x", 1.0, 2.0)], starts)) == wrong


def test_the_table_has_a_line_for_each_fault():
    """With what was broken in words."""
    text = table([outcome(began=0.0), outcome(Kind.REDIS_GONE, answer(problem="reset"))])
    assert len(text.splitlines()) == 3
    assert "1 warm requests failed, e.g. reset" in text.splitlines()[2]
