"""No request is read in one way by Greenroom and in another by the Actor: raw bytes over every way through it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from proxy.suite.differences import CASES_THAT_DIFFER, differs
from proxy.suite.smuggling import play
from proxy.suite.smuggling_cases import CASES, Case
from proxy.suite.stage import Door


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_raw_bytes(door: Door, case: Case) -> None:
    """What is ambiguous is refused and the connection closed; what passes means the same to the Actor."""
    if differs(door, case.name, CASES_THAT_DIFFER):
        with pytest.raises((AssertionError, TimeoutError)):
            play(replace(door, wait_secs=0.5), case)
    else:
        play(door, case)


def test_list_of_differences() -> None:
    """Names cases that exist."""
    assert CASES_THAT_DIFFER.keys() <= {case.name for case in CASES}


def test_names() -> None:
    """No case hides another."""
    assert len({case.name for case in CASES}) == len(CASES)
