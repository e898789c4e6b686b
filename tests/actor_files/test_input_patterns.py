"""JavaScript's regular expressions, understood as JavaScript does, within a bounded time."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actor_files.patterns import PatternBudget, TooSlow, UnusablePattern, compiled


def finds(pattern: str, text: str) -> bool:
    return PatternBudget(time.monotonic, 5).finds(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        pytest.param("b", "abc", True, id="somewhere in the text"),
        pytest.param("^a$", "a\n", False, id="$ is the very end"),
        pytest.param("^.$", "\u2028", False, id="a dot is no line end"),
        pytest.param(r"^\d$", "٣", False, id="digits are ASCII"),
        pytest.param(r"^\w+$", "é", False, id="so are words"),
        pytest.param(r"^[\w-]+$", "é", False, id="in classes too"),
        pytest.param(r"^\W\D$", "éé", True, id="and their opposites"),
        pytest.param(r"^\p{L}+$", "é", True, id="properties of characters"),
        pytest.param(r"^https?:\/\/[^\s/]+", "http://a.b/c", True, id="an address"),
        pytest.param(r"^(?<y>\d{4})-\k<y>$", "2026-2026", True, id="a named group"),
        pytest.param(r"(?<=a)b(?!c)", "abd", True, id="looks around"),
        pytest.param("^[^]$", "\n", True, id="any character at all"),
        pytest.param("a[]", "a", False, id="no character at all"),
        pytest.param("^[[a]$", "[", True, id="a bracket in a class"),
        pytest.param(r"^\u{1F600}$", "😀", True, id="a character by its number"),
        pytest.param(r"^\ud83d\ude00$", "😀", True, id="by its two halves"),
        pytest.param(r"^[\u0041-\u0043]$", "B", True, id="a range by numbers"),
        pytest.param(r"^\cJ$", "\n", True, id="a control character"),
        pytest.param(r"^\0$", "\0", True, id="a zero"),
        pytest.param("^a{,3}$", "a{,3}", True, id="a brace that counts nothing"),
        pytest.param("^a{2,3}$", "aaa", True, id="one that counts"),
        pytest.param("^(?:foo){e<=1}$", "fo", False, id="nothing fuzzy"),
        pytest.param("^[a-z&&b]$", "&", True, id="no sets of sets"),
        pytest.param(r"^[\w.+-]+@[\w-]+\.[\w.-]+$", "a.b@c.de", True, id="a mail address"),
    ],
)
def test_javascripts_meaning(pattern: str, text: str, expected: bool) -> None:
    """Where Python's words mean something else, they are translated."""
    assert finds(pattern, text) is expected


@pytest.mark.parametrize("pattern", ["(", "[a", "*", r"\A", r"\Qx", "(?P<a>x)", "(?#c)", "(?R)", "\\", "a" * 20_000])
def test_what_is_none(pattern: str) -> None:
    """Also what only Python would understand."""
    with pytest.raises(UnusablePattern):
        compiled(pattern)


@given(st.text("a\\[](){}^$.*+?|uxdk<>-=!&,1", max_size=12), st.text("a1\n", max_size=5))
def test_any_text_is_a_pattern_or_refused(pattern: str, text: str) -> None:
    """No other exception."""
    with contextlib.suppress(UnusablePattern):
        finds(pattern, text)


def test_time_is_counted_over_all_patterns() -> None:
    """What one has used is not there for the next."""
    now = iter([0.0, 0.6, 0.6, 1.2])
    budget = PatternBudget(lambda: next(now), 1.0)
    assert budget.finds("a", "a")
    assert budget.finds("a", "a")
    with pytest.raises(TooSlow):
        budget.finds("a", "a")


def test_a_pattern_that_never_ends_is_given_up() -> None:
    """It is given up after its time, however long it would take."""
    began = time.monotonic()
    with pytest.raises(TooSlow) as caught:
        PatternBudget(time.monotonic, 0.2).finds("^(a|a)*$", "a" * 50 + "!")
    assert caught.value.pattern == "^(a|a)*$"
    assert time.monotonic() - began < 5
