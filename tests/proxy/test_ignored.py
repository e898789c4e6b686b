"""Requests that are no use of their Actor: told by User-Agent and path, and by nothing where nothing is set."""

from __future__ import annotations

from typing import NoReturn

import pytest

from gateway.core.standby import StandbyConfig
from gateway.proxy.ignored import ignoring
from gateway.proxy.plan import Headers

CONFIG = StandbyConfig(idle_ignored_user_agents=("kube-probe/", "Watcher 2"), idle_ignored_paths=("/health", "/a%20b/"))


def never_asked() -> NoReturn:
    """Headers that nobody may split."""
    raise AssertionError("the headers were asked for")


def test_nothing_set_costs_nothing() -> None:
    """Without such settings there is nothing to call at all, and the headers are left alone; so with paths only."""
    assert ignoring(StandbyConfig(), never_asked) is None
    assert ignoring(StandbyConfig(idle_ignored_paths=("/health",)), never_asked) is not None


@pytest.mark.parametrize(
    ("headers", "target", "is_ignored"),
    [
        pytest.param([(b"User-Agent", b"kube-probe/1.30")], b"/", True, id="its User-Agent begins so"),
        pytest.param([(b"user-agent", b"Watcher 2")], b"/any?x=1", True, id="and is no longer"),
        pytest.param([(b"User-Agent", b"Watcher 1")], b"/", False, id="another User-Agent"),
        pytest.param([(b"User-Agent", b"my kube-probe/1")], b"/", False, id="it stands amid the User-Agent"),
        pytest.param([(b"X-Agent", b"kube-probe/1")], b"/", False, id="it stands in another header"),
        pytest.param([], b"/health", True, id="the path"),
        pytest.param([], b"/health?deep=1", True, id="the path with a query"),
        pytest.param([], b"/health/", False, id="a path below"),
        pytest.param([], b"/Health", False, id="paths have a case"),
        pytest.param([], b"/?/health", False, id="the path stands in the query"),
        pytest.param([], b"/a%20b/", True, id="the path as it was sent"),
        pytest.param([], b"/a b/", False, id="not decoded"),
        pytest.param([], b"*", False, id="no path"),
    ],
)
def test_who_is_ignored(headers: Headers, target: bytes, is_ignored: bool) -> None:
    """A User-Agent that begins as named, or exactly a path as named, whatever its query."""
    ignores = ignoring(CONFIG, lambda: headers)
    assert ignores is not None
    assert ignores(target) is is_ignored
