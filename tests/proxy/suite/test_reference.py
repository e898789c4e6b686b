"""
The same cases with nginx and HAProxy in Greenroom's place: the yardstick's yardstick.

Most end the same; each other outcome stands in reference.py with its reason, and a changed one fails here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial

import pytest
from proxy.suite import answers, smuggling
from proxy.suite.answer_cases import ANSWER_CASES
from proxy.suite.reference import REFERENCES, UNSTEADY, why_it_differs
from proxy.suite.reference_doors import reference_door
from proxy.suite.semantics_cases import ALL_SCENES
from proxy.suite.smuggling_cases import CASES
from proxy.suite.stage import Door, Stage
from proxy.suite.wire import Broken, Ended

Play = Callable[[Door], None]
PLAYS: dict[str, Play] = {
    **{f"request: {case.name}": partial(smuggling.play, case=case, has_envelope=False) for case in CASES},
    **{f"answer: {case.name}": partial(answers.play, case=case, has_envelope=False) for case in ANSWER_CASES},
    **{f"scene: {scene.name}": scene.play for scene in ALL_SCENES if not scene.needs_greenroom},
}
_UNLIKE_GREENROOM = (AssertionError, TimeoutError, Broken, Ended, ValueError)


_ALL = [
    pytest.param(proxy, name, id=f"{proxy}-{name}")
    for proxy in sorted(REFERENCES)
    for name in PLAYS
    if name not in UNSTEADY[proxy]
]


@pytest.fixture(scope="module")
def open_door(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Door]]:
    """The door of a proxy, which is started when it is first asked for: tests come in random order."""
    with contextlib.ExitStack() as stack:
        yield cache(lambda proxy: stack.enter_context(reference_door(proxy, stage, tmp_path_factory.mktemp(proxy))))


@pytest.fixture
def reference(proxy: str, open_door: Callable[[str], Door]) -> Iterator[Door]:
    """The proxy, with nothing left of what was done before."""
    door = open_door(proxy)
    # What a caller who has gone asked for may be on its way still: this request comes after it, by the same worker.
    with door.connect() as client:
        client.send(door.fill(b"GET /before HTTP/1.1\r\nHost: @HOST@\r\n\r\n"))
        assert client.answer().status == 200
    door.recorder.cut()
    door.recorder.forget()
    yield door
    door.recorder.cut()


@pytest.mark.slow
@pytest.mark.parametrize(("proxy", "name"), _ALL)
def test_same_cases(reference: Door, name: str) -> None:
    """Ends as with Greenroom, or is listed and really ends otherwise."""
    if why_it_differs(reference.name, name) is None:
        PLAYS[name](reference)
    else:
        with pytest.raises(_UNLIKE_GREENROOM):
            PLAYS[name](replace(reference, wait_secs=0.5))


@pytest.mark.parametrize("proxy", sorted(REFERENCES))
def test_list_of_differences(proxy: str) -> None:
    """Names cases that exist, each once."""
    patterns = [*UNSTEADY[proxy], *(name for names in REFERENCES[proxy].values() for name in names)]
    assert len(patterns) == len(set(patterns))
    assert [one for one in patterns if not any(fnmatchcase(name, one) for name in PLAYS)] == []
