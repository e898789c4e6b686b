"""What the quickstart shows is true: the real server, the example Actor, a first call."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "deploy" / "examples"
FIRST_CALL = [sys.executable, str(ROOT / "deploy" / "first_call.py")]

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "has_node", [pytest.param(True, id="with Node", marks=needs_npm), pytest.param(False, id="without Node")]
)
def test_check(tmp_path, has_node):
    """
    `--check` wakes the hello Actor, calls the examples on the SDKs, finds all as it should be, stops the server and
    leaves nothing behind. Where Node.js is not found, one line says what is left out.
    """
    variables = os.environ | {"TMPDIR": str(tmp_path), "GREENROOM_PORT": "none of the check's business"}
    if not has_node:
        variables["PATH"] = str(ROOT / "deploy")  # a folder without any program
    done = subprocess.run([*FIRST_CALL, "--check"], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"asleep .*\n +started +in \d+ ms.*\n +answered .*\n +warm ", done.stdout)
    assert ("Left out: sdk-javascript, since Node.js and npm were not found.\n" in done.stdout) is not has_node
    assert done.stdout.endswith("quickstart: all as it should be.\n")
    assert list(tmp_path.iterdir()) == []


def test_an_old_node_is_not_enough(tmp_path):
    """With a Node.js that the SDK can't run on, the Actor in JavaScript is left out, and the line tells the version."""
    for name, text in (("node", "v16.20.0"), ("npm", "8.0.0")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {text}\n")
        (tmp_path / name).chmod(0o755)
    told = subprocess.run(
        [sys.executable, "-c", "import sdk_examples; print(sdk_examples.servable()[1])"],
        cwd=ROOT / "deploy",
        env=os.environ | {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT / "deploy")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Left out: sdk-javascript" in told
    assert "v16.20.0" in told


def test_both_sdk_examples_have_the_same_page_and_schemas():
    """What each folder must have for itself, so that it can be copied, is alike in both."""
    for name in ("page.html", ".actor/input_schema.json", ".actor/dataset_schema.json"):
        assert (EXAMPLES / "sdk-python" / name).read_text() == (EXAMPLES / "sdk-javascript" / name).read_text()


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
    assert len((EXAMPLES / "hello" / "main.py").read_text().splitlines()) < 20
