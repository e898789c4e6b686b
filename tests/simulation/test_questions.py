"""The two questions, and what is drawn and printed of the answers."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from loadtests.figures import Report
from loadtests.simulate import all_of, answer, side_by_side
from loadtests.simulation.chart import Point, chart
from loadtests.simulation.fixed import FixedIdle
from loadtests.simulation.many_pools import secs_for_a_tick
from loadtests.simulation.questions import (
    Result,
    Setting,
    Total,
    fewest_late,
    fewest_run_secs,
    kpa_settings,
    other_settings,
    our_settings,
)


def result(name: str, *traces: tuple[int, float], policy: str = "greenroom") -> Result:
    """Late requests and run-seconds of traces a, b, …, with one seed."""
    totals = {trace: Total([late], [secs], 1) for trace, (late, secs) in zip("abcd", traces, strict=False)}
    return Result(Setting(policy, name, FixedIdle), totals)


KPA = result("defaults", (10, 100.0), (10, 100.0), policy="kpa")
CHEAP = result("cheap", (10, 50.0), (10, 98.0))
PROMPT = result("prompt", (1, 100.0), (2, 99.0))
UNEVEN = result("uneven", (15, 40.0), (5, 90.0))
DEAR = result("dear", (0, 50.0), (0, 101.0))
RESULTS = [CHEAP, PROMPT, UNEVEN, DEAR]


def test_the_first_question() -> None:
    """The fewest late of those that have no more run-seconds on any trace."""
    assert fewest_late(RESULTS, KPA) is PROMPT
    assert fewest_late([DEAR], KPA) is None


def test_the_second_question() -> None:
    """The fewest run-seconds of those with no more late requests on each trace, or summed over them."""
    assert fewest_run_secs(RESULTS, KPA, on_each_trace=True) is CHEAP
    assert fewest_run_secs(RESULTS, KPA, on_each_trace=False) is UNEVEN
    assert fewest_run_secs([DEAR], KPA, on_each_trace=False) is None


def test_figures_by_the_names_of_their_limits() -> None:
    """With their values, and the setting that gave them."""
    report = Report()
    answer(report, KPA, RESULTS)
    values = {figure.name: figure.value for figure in report.figures}
    assert values == {
        "late_vs_kpa": 0.15,
        "run_seconds_vs_kpa": 0.7,
        "run_seconds_vs_kpa_worst": 0.98,
        "run_seconds_vs_kpa_late_in_sum": 0.6,
    }
    assert report.raw["late_vs_kpa"]["setting"] == "greenroom (prompt)"
    assert report.raw["late_vs_kpa"]["late_vs_kpa_by_seed"] == [0.15]


def test_what_no_setting_reaches_is_missing() -> None:
    """Never assumed."""
    report = Report()
    answer(report, KPA, [DEAR])
    assert report.missing.keys() == {"late_vs_kpa", "run_seconds_vs_kpa", "run_seconds_vs_kpa_worst"}
    assert not report.holds


def test_a_table_has_all_settings() -> None:
    """And who knows the future, in the last line."""
    lines = side_by_side(KPA, [KPA, CHEAP], {"a": 0.25, "b": 0.5}).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == ["kpa (defaults)", "greenroom (cheap)", "knows the future"]
    assert "10 · 0.980" in lines[3]


def test_raw_figures_have_all_traffic_of_a_setting() -> None:
    """Recorded and made, though each was played by itself."""
    made = Result(CHEAP.setting, {"spike": Total([3, 4], [1.0, 2.0], 5)})
    assert all_of([KPA, CHEAP, made])["greenroom (cheap)"] == {
        "a": {"late": 10, "run_secs": 50.0, "starts": 1},
        "b": {"late": 10, "run_secs": 98.0, "starts": 1},
        "spike": {"late": 7, "run_secs": 3.0, "starts": 5},
    }


def test_settings_have_titles_of_their_own() -> None:
    """Knative's defaults come first, and what a quick round plays is part of the full one."""
    for some in (kpa_settings, other_settings, our_settings):
        quick, full = ([setting.title for setting in some(swept=swept)] for swept in (False, True))
        assert len(set(full)) == len(full)
        assert set(quick) <= set(full)
    assert kpa_settings(swept=True)[0].words == "target 0.7 of 4, grace 30 s"


def test_a_chart_shows_each_setting() -> None:
    """As a dot with a title, inside of its panel; names are escaped."""
    points = [Point("kpa", 1.0, 0.01, "kpa (a)"), Point("greenroom", 9.0, 0.0, "<&>")]
    drawn = chart("Late & dear", {"one": points, "two": [], "three": points}, {"one": 0.4}, "a note")
    root = ElementTree.fromstring(drawn)
    dots = [dot for dot in root.iter("{http://www.w3.org/2000/svg}circle") if len(dot)]
    assert len(dots) == 4
    assert all(0 <= float(dot.get("cx", "-1")) <= float(root.get("width", "0")) for dot in dots)
    assert all(0 <= float(dot.get("cy", "-1")) <= float(root.get("height", "0")) for dot in dots)
    with pytest.raises(ValueError, match="a panel"):
        chart("nothing", {}, {}, "")


def test_a_tick_takes_time() -> None:
    """More for more pools."""
    assert 0 < secs_for_a_tick(20) < secs_for_a_tick(2000)
