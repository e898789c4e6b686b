"""Plays one smuggling case at one door, and looks from both ends at what became of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from proxy.suite.smuggling_cases import Case, Meaning, Nowhere, Passes, Refused, Unfinished
from proxy.suite.wire import Ended

if TYPE_CHECKING:
    from proxy.suite.client import Client
    from proxy.suite.recorder import Request
    from proxy.suite.stage import Door

# Two of them, so that a connection to the Actor that fell out of step shows at the first or at the second.
_SENTINELS = (b"/sentinel-1", b"/sentinel-2")


def play(door: Door, case: Case, *, has_envelope: bool = True) -> None:
    """Raises AssertionError where *case* does not end as it has to. *has_envelope*: refusals are Greenroom's JSON."""
    with door.connect() as client:
        client.send(door.fill(case.data))
        match case.expect:
            case Refused():
                meanings = case.expect.after
                for meaning in meanings:
                    _answered(client, meaning)
                _see_refusal(client, case.expect, has_envelope=has_envelope)
            case Passes():
                meanings = case.expect.meanings
                for meaning in meanings:
                    _answered(client, meaning)
                if case.expect.ends:
                    assert client.rest() == b""
                else:
                    _ask(door, client, b"/in-step")
                    meanings = (*meanings, Meaning(target=b"/in-step"))
            case Nowhere():
                meanings = ()
                answer = client.answer()
                assert answer.status in case.expect.statuses, answer
            case Unfinished():
                meanings = ()
                client.half_close()
                client.rest()
    for sentinel in _SENTINELS:
        with door.connect() as client:
            _ask(door, client, sentinel)
    door.settle()
    assert door.recorder.garbage == [], case.name
    whole = [request for request in door.recorder.requests if request.is_whole]
    if not (isinstance(case.expect, Unfinished) or (isinstance(case.expect, Refused) and case.expect.begins)):
        assert len(whole) == len(door.recorder.requests), door.recorder.seen()
    expected = [*meanings, *(Meaning(target=sentinel) for sentinel in _SENTINELS)]
    assert [request.message.target for request in whole] == [meaning.target for meaning in expected]
    for meaning, request in zip(expected, whole, strict=True):
        _same(door, meaning, request)


def _ask(door: Door, client: Client, target: bytes) -> None:
    client.send(door.fill(b"GET " + target + b" HTTP/1.1\r\nHost: @HOST@\r\n\r\n"))
    _answered(client, Meaning(target=target))


def _answered(client: Client, meaning: Meaning) -> None:
    answer = client.final(meaning.method)
    assert (answer.status, answer.body, answer.is_whole) == (200, meaning.target, True), answer


def _see_refusal(client: Client, expect: Refused, *, has_envelope: bool) -> None:
    try:
        answer = client.final()
    except Ended:
        assert expect.begins, "closed without an answer"
        return
    assert answer.status in expect.statuses, answer
    if has_envelope:
        assert json.loads(answer.body)["error"]["type"], answer.body
        assert answer.one(b"connection") == b"close", answer
    assert client.rest() == b"", "more than one answer"


def _same(door: Door, meaning: Meaning, request: Request) -> None:
    message = request.message
    assert (message.method, message.target, message.body) == (meaning.method, meaning.target, meaning.body)
    assert len(message.values(b"host")) == 1
    for name, value in meaning.has:
        assert message.values(name) == [door.fill(value)], name
    for name in meaning.lacks:
        assert message.values(name) == [], name
    for name, value in message.trailers:
        assert not re.fullmatch(
            rb"content-length|transfer-encoding|host|connection|trailer|.*authorization|x-forwarded-.*|x-actor-.*",
            name.lower(),
        ), (name, value)
