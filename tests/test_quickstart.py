"""What the quickstart shows is true: the real server, the example Actor, a first call."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_CALL = [sys.executable, str(ROOT / "deploy" / "first_call.py")]


def test_check(tmp_path):
    """`--check` wakes the hello Actor, finds all as it should be, stops the server and leaves nothing behind."""
    variables = os.environ | {"TMPDIR": str(tmp_path), "GREENROOM_PORT": "none of the check's business"}
    done = subprocess.run([*FIRST_CALL, "--check"], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"asleep .*\n +started +in \d+ ms.*\n +answered .*\n +warm ", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_check_fails_where_it_should(tmp_path):
    """A server that can't start fails the check, with its own clear line."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = subprocess.run(
            [*FIRST_CALL, "--check", "--port", port],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_hello_is_under_20_lines():
    """The first example is as short as it is promised to be."""
    assert len((ROOT / "deploy" / "examples" / "hello" / "main.py").read_text().splitlines()) < 20
