"""``python -m loadtests.simulate`` as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_the_help_explains_the_lines() -> None:
    """All fields of an observation are in it."""
    told = subprocess.run(
        [sys.executable, "-m", "loadtests.simulate", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for field in (
        "now",
        "pool",
        "runs",
        "ageSecs",
        "idleSecs",
        "waiting",
        "averages",
        "idleTimeoutSecs",
        "lookAgainInSecs",
    ):
        assert field in told


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quick_round_gives_every_figure(tmp_path: Path) -> None:
    """Those of the issue, with their limits; the exit code says whether all hold; the chart can be read."""
    figures, chart = tmp_path / "figures.json", tmp_path / "chart.svg"
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.simulate", "--quick", "--json", str(figures), "--chart", str(chart)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(figures.read_text())
    limits = {name: (figure["limit"], figure["kind"]) for name, figure in report["figures"].items()}
    expected = {
        "decide_10k_pools_s": (1.0, "at_most"),
        "late_vs_kpa": (0.7, "at_most"),
        "run_seconds_vs_kpa": (0.9, "at_most"),
        "run_seconds_vs_kpa_worst": (1.0, "at_most"),
    }
    assert {name: limits[name] for name in expected} == expected
    assert report["figures"]["late_vs_kpa"]["holds"]
    assert report["figures"]["run_seconds_vs_kpa_worst"]["holds"]
    values = {name: figure["value"] for name, figure in report["figures"].items()}
    # Who knows more pays less.
    assert 0.3 < values["run_seconds_of_oracle_vs_kpa"] < values["run_seconds_of_informed_vs_kpa"]
    assert values["run_seconds_of_informed_vs_kpa"] < values["run_seconds_vs_kpa"] < 1
    assert (done.returncode == 0) == all(figure["holds"] for figure in report["figures"].values())
    assert ElementTree.parse(chart).getroot().tag.endswith("svg")
