"""
Whatever Greenroom accepts reaches the Actor as exactly one request of the same meaning, on connections in step.

``SUITE_EXAMPLES`` sets how many are tried at each door.
"""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxy.suite.random_requests import (
    KNOWN_METHODS,
    OWN_METHODS,
    meaning_of,
    mutated,
    readings,
    valid_requests,
)
from proxy.suite.stage import Door
from proxy.suite.wire import Ended

_EXAMPLES = int(os.environ.get("SUITE_EXAMPLES", "25"))
_SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: @HOST@\r\nConnection: close\r\n\r\n"
_bounded = settings(max_examples=_EXAMPLES, suppress_health_check=list(HealthCheck))


def _cuts(draw: st.DataObject, length: int) -> list[int]:
    return sorted(draw.draw(st.lists(st.integers(1, max(1, length - 1)), max_size=6)))


@_bounded
@given(data=st.data())
def test_valid_requests(door: Door, data: st.DataObject) -> None:
    """Legal requests, however odd, in one go or in pieces: each is answered in order, nothing else gets through."""
    door.settle()
    door.recorder.forget()
    requests = data.draw(st.lists(valid_requests(methods=(*KNOWN_METHODS, *OWN_METHODS)), min_size=1, max_size=4))
    sent = door.fill(b"".join(requests) + _SENTINEL)
    expected = list(readings(sent))
    assert len(expected) == len(requests) + 1
    with door.connect() as client:
        client.send(sent, pieces=_cuts(data, len(sent)))
        for meaning in expected:
            answer = client.final(meaning.method)
            assert (answer.status, answer.is_whole) == (200, True), answer
            assert answer.body == meaning.target
        assert client.rest() == b""
    door.settle()
    assert [meaning_of(request.message) for request in door.recorder.requests] == expected
    assert door.recorder.garbage == []


@_bounded
@given(data=st.data())
def test_mutated_requests(door: Door, data: st.DataObject) -> None:
    """
    Requests that were tampered with: what reaches the Actor is what a strict reader reads in the same bytes, in the
    same order; whatever was not accepted has left nothing behind on any connection.
    """
    door.settle()
    door.recorder.forget()
    requests = data.draw(st.lists(valid_requests(methods=KNOWN_METHODS), min_size=1, max_size=3))
    place = data.draw(st.integers(0, len(requests) - 1))
    requests[place] = data.draw(mutated(requests[place]))
    sent = door.fill(b"".join(requests) + _SENTINEL)
    answered = 0
    with replace(door, wait_secs=0.25).connect() as client:
        client.send(sent, pieces=_cuts(data, len(sent)))
        try:
            while (answer := client.final()).status:
                answered += answer.status == 200
        except Ended:
            pass
        except TimeoutError:  # it waits for a body that does not come
            client.half_close()
            client.rest()
    for target in (b"/after-1", b"/after-2"):
        with door.connect() as client:
            client.send(door.fill(b"GET " + target + b" HTTP/1.1\r\nHost: @HOST@\r\n\r\n"))
            assert client.final().body == target
    door.settle()
    assert door.recorder.garbage == []
    seen = [meaning_of(request.message) for request in door.recorder.requests if request.is_whole]
    after = [meaning for meaning in seen if meaning.target.startswith(b"/after-")]
    seen = [meaning for meaning in seen if not meaning.target.startswith(b"/after-")]
    assert len(after) == 2
    strict = readings(sent)
    for meaning in seen:  # an iterator that is searched on: ``seen`` has to be a part of it, in order
        assert meaning in strict, f"{meaning} is not what was sent"
    if door.path == "splice":
        assert answered == len(seen)


def test_the_strict_reader() -> None:
    """The yardstick itself: it reads what is plain, and stops at what is not."""
    good = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
    assert [meaning.target for meaning in readings(good + b"\r\n" + good + b"GET /b HTTP/1.1\nHost: h\r\n\r\n")] == [
        b"/a",
        b"/a",
    ]
    chunked = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\n\r\n"
    assert [meaning.body for meaning in readings(chunked)] == [b"hi"]
