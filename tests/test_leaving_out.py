"""In CI no test is left out unnoticed: what conftest.py does, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TEST = "import pytest\n\ndef test_it():\n    pytest.skip('no such tool')\n"
MODULE = "import pytest\n\npytest.importorskip('no_such_module')\n"


@pytest.mark.parametrize("source", [pytest.param(TEST, id="test"), pytest.param(MODULE, id="module")])
@pytest.mark.parametrize(("ci", "fails"), [("true", True), ("", False)])
def test_skips(tmp_path, source, ci, fails):
    """A skipped test or module is fine on a developer's machine and a failure in CI."""
    conftest = Path(__file__).with_name("conftest.py").read_text()
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_skipped.py").write_text(f"{source}\n\ndef test_other():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
    )
    assert (done.returncode in (1, 2)) == fails, done.stdout
    assert ("nothing may be" in done.stdout) == fails
