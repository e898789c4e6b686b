"""No request is read in one way by Greenroom and in another by the Actor: raw bytes over every way through it."""

from __future__ import annotations

import pytest
from proxy.suite.smuggling import play
from proxy.suite.smuggling_cases import CASES, Case
from proxy.suite.stage import Door


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_raw_bytes(door: Door, case: Case) -> None:
    """What is ambiguous is refused and the connection closed; what passes means the same to the Actor."""
    play(door, case)


def test_names() -> None:
    """No case hides another."""
    assert len({case.name for case in CASES}) == len(CASES)
