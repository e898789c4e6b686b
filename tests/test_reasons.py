"""What a process of Greenroom says when it can't go on."""

from __future__ import annotations

import pytest

from gateway.core.errors import LaunchError
from gateway.reasons import reasons_in_words
from gateway.refusals import Refused
from gateway.state.ports import StateUnavailable


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(StateUnavailable("Records: away."), ["Records: away."], id="a store"),
        pytest.param(FileNotFoundError(2, "No such file", "/x"), ["[Errno 2] No such file: '/x'"], id="a file"),
        pytest.param(
            ExceptionGroup("", [LaunchError("No helper."), ExceptionGroup("", [Refused("No folder.")])]),
            ["No helper.", "No folder."],
            id="several at once, as a task group gathers them",
        ),
        pytest.param(KeyError("x"), None, id="a bug"),
        pytest.param(ExceptionGroup("", [LaunchError("No helper."), KeyError("x")]), None, id="a bug among others"),
    ],
)
def test_reasons_in_words(error: Exception, expected: list[str] | None) -> None:
    """What a person can mend is told in lines; what looks like a bug keeps its traceback."""
    assert reasons_in_words(error) == expected
