"""What a child of ``greenroom serve`` makes sure of for itself."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

SHOWS = """
import resource, sys
from gateway.child import allow_many_files
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
allow_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
MOST = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        pytest.param(256, 1024, 1024, id="all that the system allows"),
        pytest.param(1024, 1024, 1024, id="has them already"),
        pytest.param(
            1024, MOST, MOST if 0 <= MOST < 65_536 else 65_536, id="as many as are of use, where it allows more"
        ),
    ],
)
def test_a_child_has_descriptors_for_many_requests(least: int, most: int, expected: int) -> None:
    """Whatever little it was started with; the hard limit stays as it is."""
    shown = subprocess.run(
        [sys.executable, "-c", SHOWS, str(least), str(most)], capture_output=True, text=True, check=True
    ).stdout
    assert shown.split() == [str(expected), str(most)]
