"""The thresholds: each with a range, as JSON and back."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from autoscaler.policy.thresholds import GREENROOM, PLATFORM, PRESETS, Policy, RequestsRule, chosen
from gateway.core.errors import InvalidConfig


@pytest.mark.parametrize("policy", [GREENROOM, PLATFORM, replace(GREENROOM, late_price_secs=28, gaps_needed=3)])
def test_they_survive_being_stored(policy: Policy) -> None:
    """Exactly."""
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy


def test_the_default_is_ours() -> None:
    """The preset ``greenroom`` is what one gets without asking; ``platform`` differs in its rule."""
    assert Policy() == GREENROOM == PRESETS["greenroom"] == Policy.from_json({})
    assert PRESETS["platform"].requests_rule is RequestsRule.SLOTS


def test_each_threshold_is_explained() -> None:
    """With its default, in the docstring."""
    told = Policy.__doc__ or ""
    assert [field.name for field in fields(Policy) if f"``{field.name}``" not in told] == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param({"stable_window_secs": 0}, "stable_window_secs is a whole number from 1 to 60", id="too short"),
        pytest.param({"stable_window_secs": 61}, "from 1 to 60", id="longer than a window is"),
        pytest.param({"stable_window_secs": 1.5}, "a whole number", id="not whole"),
        pytest.param({"panic_factor": float("nan")}, "panic_factor is a number", id="no number at all"),
        pytest.param({"late_price_secs": "much"}, "late_price_secs is a number", id="text"),
        pytest.param({"late_price_secs": True}, "late_price_secs is a number", id="a flag"),
        pytest.param({"queue_ratio": 1.1}, "from 0 to 1", id="more than all"),
        pytest.param({"max_scale_down_factor": 0}, "from 1", id="everything divided by zero"),
        pytest.param({"learns_idle_timeout": 1}, "true or false", id="a number for a flag"),
        pytest.param({"requests_rule": "dice"}, "slots, windows", id="an unknown rule"),
        pytest.param({"requests_rule": ["slots"]}, "slots, windows", id="a list for a rule"),
        pytest.param({"price": 1}, "price: no such threshold", id="an unknown threshold"),
    ],
)
def test_what_is_refused(given: dict[str, Any], words: str) -> None:
    """With what is expected instead."""
    with pytest.raises(InvalidConfig, match=words):
        Policy.from_json(given)


def test_thresholds_replace_those_of_the_preset() -> None:
    """Each by its name; the others stay."""
    assert chosen("greenroom", {}) == GREENROOM
    assert chosen("platform", {}) == PLATFORM
    assert chosen("greenroom", {"panic_window_secs": 10}) == replace(GREENROOM, panic_window_secs=10)


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        pytest.param({"panik": 1}, "panik: no such threshold. Known ones: .*panic_factor", id="unknown"),
        pytest.param({"panic_factor": 0}, "panic_factor is a number from 1 to 1000, not 0", id="out of range"),
        pytest.param({"panic_window_secs": 1.5}, "panic_window_secs is a whole number", id="half a second"),
        pytest.param({"requests_rule": "slots"}, "requests_rule comes with autoscaler_preset", id="the preset's own"),
    ],
)
def test_thresholds_that_are_refused(thresholds: dict[str, Any], words: str) -> None:
    """With the setting, and what is expected."""
    with pytest.raises(InvalidConfig, match=f"^autoscaler_thresholds: {words}"):
        chosen("greenroom", thresholds)
