"""What is said of a run that was killed for want of memory."""

from __future__ import annotations

import pytest

from gateway.core.model import MEMORY_STEPS_MBYTES
from gateway.core.run_changes import out_of_memory


@pytest.mark.parametrize(
    ("memory_mbytes", "advice"),
    [
        pytest.param(128, "start it with 256 MiB", id="the smallest"),
        pytest.param(4096, "start it with 8192 MiB", id="in the middle"),
        pytest.param(16384, "start it with 32768 MiB", id="the last step"),
        pytest.param(32768, "no run may have more, so make it use less", id="the largest"),
    ],
)
def test_the_next_size_is_named(memory_mbytes: int, advice: str) -> None:
    """The one that a start accepts, twice the present one; where there is none, that is said."""
    assert out_of_memory(memory_mbytes) == f"Out of memory ({memory_mbytes} MiB): {advice}."
    assert memory_mbytes in MEMORY_STEPS_MBYTES
