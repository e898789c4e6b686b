"""What an Actor answers is held to the same rules as what a caller asks: raw bytes over every way through Greenroom."""

from __future__ import annotations

import pytest
from proxy.suite.answer_cases import ANSWER_CASES, AnswerCase
from proxy.suite.answers import play
from proxy.suite.stage import Door


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in ANSWER_CASES])
def test_raw_answers(door: Door, case: AnswerCase) -> None:
    """None is taken for the next, none that broke off looks whole, and a doubtful connection is never used again."""
    play(door, case)
