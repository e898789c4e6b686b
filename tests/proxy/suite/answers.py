"""Plays one answer case at one door, and looks from both ends at what became of it."""

from __future__ import annotations

import json

from proxy.suite.answer_cases import AnswerCase
from proxy.suite.client import Client
from proxy.suite.recorder import Turn
from proxy.suite.scenes import ask, plays, request_of
from proxy.suite.stage import Door
from proxy.suite.wire import Ended, Message


def play(door: Door, case: AnswerCase, *, has_envelope: bool = True) -> None:
    """Raises AssertionError where *case* does not end as it has to. *has_envelope*: errors are Greenroom's JSON."""

    async def script(turn: Turn) -> None:
        await turn.body()
        await turn.write(case.data)
        if case.closes:
            turn.close()
        elif not case.is_reused:
            await turn.until_gone()
            turn.close()

    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door, method=case.method))
        answer = _final(client, case)
        if answer is not None:
            _check(case, answer, has_envelope=has_envelope)
        if answer is not None and answer.keeps_alive and answer.is_whole:
            client.send(request_of(door, target=b"/in-step"))
            assert client.final().body == b"/in-step"
        else:
            assert client.rest() == b""
    for sentinel in (b"/sentinel-1", b"/sentinel-2"):
        assert ask(door, target=sentinel).body == sentinel
    door.settle()
    numbers = [request.connection.number for request in door.recorder.requests if request.message.target == b"/x"]
    assert len(numbers) == 1, "it was sent twice"
    after = {request.connection.number for request in door.recorder.requests if request.message.target != b"/x"}
    assert (numbers[0] in after) == case.is_reused


def _final(client: Client, case: AnswerCase) -> Message | None:
    try:
        return client.final(case.method)
    except Ended:
        assert case.may_be_cut, "closed without an answer"
        return None


def _check(case: AnswerCase, answer: Message, *, has_envelope: bool) -> None:
    if case.may_be_cut and answer.status == 200:
        assert not answer.is_whole, "a bad answer looks whole"
        return
    assert (answer.status, answer.is_whole) == (case.status, True), answer
    if case.status == 502:
        if has_envelope:
            assert json.loads(answer.body)["error"]["type"] == "standby-bad-gateway", answer
        assert b"OTHER" not in answer.body
    else:
        assert answer.body == case.body
