"""Scenes: who may call, which run serves, and what Greenroom itself answers."""

from __future__ import annotations

import json
import socket
import time

from proxy.suite.recorder import Turn
from proxy.suite.scenes import (
    OK,
    ask,
    is_in_step,
    only_request,
    other_door,
    own_scene,
    plays,
    request_of,
    says,
    seen_of,
)
from proxy.suite.stage import TOKEN, Door
from proxy.suite.wire import Message

_BEARER = b"Authorization: Bearer @TOKEN@"


def _error(answer: Message) -> str:
    return str(json.loads(answer.body)["error"]["type"])


@own_scene
def a_token_in_authorization(door: Door) -> None:
    """It opens the door and goes no further."""
    seen = seen_of(door, _BEARER, host=b"@SHUT@")
    assert seen.values(b"authorization") == []
    assert TOKEN.encode() not in bytes(only_request(door).connection.raw)


@own_scene
def a_token_in_apifys_header(door: Door) -> None:
    """It opens the door and goes no further."""
    seen_of(door, b"X-Apify-Authorization: Bearer @TOKEN@", host=b"@SHUT@")
    assert TOKEN.encode() not in bytes(only_request(door).connection.raw)


@own_scene
def a_token_in_the_query(door: Door) -> None:
    """It opens the door and goes no further; the rest of the query stays as it was."""
    seen = seen_of(door, host=b"@SHUT@", target=b"/x?a=%2F&token=" + TOKEN.encode() + b"&b=")
    assert seen.target == b"/x?a=%2F&b="


@own_scene
def a_token_in_the_query_in_disguise(door: Door) -> None:
    """The same with percent signs in the name."""
    seen = seen_of(door, host=b"@SHUT@", target=b"/x?%74oken=" + TOKEN.encode())
    assert seen.target == b"/x"


@own_scene
def a_token_in_a_referer(door: Door) -> None:
    """A page that was opened with a token names it in what it asks for; it goes no further."""
    seen = seen_of(door, _BEARER, b"Referer: http://@SHUT@/p?token=@TOKEN@&a=1", host=b"@SHUT@")
    assert seen.one(b"referer") == b"http://" + door.shut_host + b"/p?a=1"


@own_scene
def an_authorization_of_the_actors_own(door: Door) -> None:
    """At a public Actor, what is no token of Greenroom's is the Actor's."""
    assert seen_of(door, b"Authorization: Basic eDp5").values(b"authorization") == [b"Basic eDp5"]


@own_scene
def our_token_at_a_public_actor(door: Door) -> None:
    """Nobody had to send it, and still it goes no further."""
    assert seen_of(door, _BEARER).values(b"authorization") == []


@own_scene
def no_token(door: Door) -> None:
    """401 says what is missing, and the connection stays."""
    with door.connect() as client:
        client.send(request_of(door, host=b"@SHUT@"))
        answer = client.final()
        assert (answer.status, _error(answer)) == (401, "user-not-authenticated")
        assert (answer.one(b"www-authenticate") or b"").startswith(b"Bearer")
        assert door.recorder.requests == []
        assert answer.keeps_alive
        is_in_step(door, client)


@own_scene
def a_wrong_token(door: Door) -> None:
    """401, and nothing of the token in the answer."""
    answer = ask(door, b"Authorization: Bearer greenroom_api_wrong", host=b"@SHUT@")
    assert (answer.status, _error(answer)) == (401, "user-or-token-not-found")
    assert b"greenroom_api_wrong" not in answer.body
    assert door.recorder.requests == []


@own_scene
def a_wrong_token_and_then_the_right_one(door: Door) -> None:
    """What a connection has learnt of one head is not taken for another's."""
    with door.connect() as client:
        for line, status in (
            (_BEARER, 200),
            (b"Authorization: Bearer greenroom_api_wrong", 401),
            (_BEARER, 200),
            (b"X-None: 1", 401),
            (_BEARER, 200),
        ):
            client.send(request_of(door, line, host=b"@SHUT@"))
            assert client.final().status == status


@own_scene
def no_token_with_a_body(door: Door) -> None:
    """The refused request's body is not taken for the next request."""
    body = request_of(door, target=b"/smuggled")
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: %d" % len(body), method=b"POST", host=b"@SHUT@") + body)
        answer = client.final()
        assert answer.status == 401
        if answer.keeps_alive:
            is_in_step(door, client)
        else:
            assert client.rest() == b""
    assert b"GET /smuggled HTTP/1.1" not in door.recorder.seen()


@own_scene
def a_host_that_nobody_has(door: Door) -> None:
    """404 with the words of an Actor that may not be called, and the connection stays."""
    with door.connect() as client:
        client.send(request_of(door, host=b"bob--nothing.localhost"))
        answer = client.final()
        assert (answer.status, _error(answer)) == (404, "record-not-found")
        assert answer.keeps_alive
        is_in_step(door, client)


@own_scene
def an_error_to_a_head_request(door: Door) -> None:
    """Has no body, and the connection stays in step."""
    with door.connect() as client:
        client.send(request_of(door, host=b"@SHUT@", method=b"HEAD"))
        assert client.final(b"HEAD").status == 401
        is_in_step(door, client)


@own_scene
def a_preflight_wakes_nobody(door: Door) -> None:
    """A browser's question is answered without a token and without a run."""
    answer = ask(
        door, b"Origin: https://a.example", b"Access-Control-Request-Method: PUT", method=b"OPTIONS", host=b"@SHUT@"
    )
    assert (answer.status, answer.one(b"access-control-allow-methods") is not None) == (204, True)
    assert door.recorder.requests == []


@own_scene
def a_run_that_refuses_connections(door: Door) -> None:
    """The next one takes the request, and its body with it."""
    stand, stage = door.stand, door.stage
    assert stand is not None
    assert stage is not None
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and not listening
        refusing = stage.call(stand.put_run("open-spare", nobody.getsockname()[1]))
        try:
            serving = stage.call(stand.put_run("open-spare", door.recorder.port))
            try:
                for _ in range(6):
                    answer = ask(
                        door, b"Content-Length: 5", method=b"POST", host=b"bob--open-spare.localhost", body=b"hello"
                    )  # fmt: skip
                    assert answer.status == 200
            finally:
                stage.call(stand.settle())
                stage.call(stand.end_run(serving))
        finally:
            stage.call(stand.end_run(refusing))
    assert [request.message.body for request in door.recorder.requests] == [b"hello"] * 6


@own_scene
def an_actor_that_speaks_no_http(door: Door) -> None:
    """502 with the run, and the connection stays."""
    says(door, b"SSH-2.0-OpenSSH_9.2\r\n", closes=True)
    with door.connect() as client:
        client.send(request_of(door))
        answer = client.final()
        assert (answer.status, _error(answer)) == (502, "standby-bad-gateway")
        assert answer.keeps_alive
        is_in_step(door, client)


@own_scene
def an_actor_that_takes_too_long(door: Door) -> None:
    """504 after the first-byte limit; the Actor's connection ends."""
    door = other_door(door, first_byte_timeout_secs=0.3)

    async def script(turn: Turn) -> None:
        await turn.body()
        await turn.until_gone()

    plays(door, script)
    answer = ask(door)
    assert (answer.status, _error(answer)) == (504, "standby-response-timeout")
    number = only_request(door).connection.number
    door.recorder.wait_until(
        lambda: all(one.has_ended for one in door.recorder.connections if one.number == number),
        "the end of its connection",
    )
    door.settle()


@own_scene
def a_live_view_host(door: Door) -> None:
    """The run's own address leads to it without a token."""
    stand = door.stand
    assert stand is not None
    if door.is_cold:
        return
    label = next(iter(stand.gateway.desk.routes.all_runs())).route.live_view_label
    assert seen_of(door, host=label.encode() + b".runs.localhost").one(b"host") == label.encode() + b".runs.localhost"


@own_scene
def a_head_that_comes_too_slowly(door: Door) -> None:
    """Whoever does not finish his head within the limit is told 408, or nothing, and cut off."""
    door = other_door(door, head_timeout_secs=0.3)
    with door.connect() as client:
        client.send(request_of(door)[:-2])
        rest = client.rest()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 408 ")
    assert door.recorder.requests == []


@own_scene
def a_second_head_that_comes_too_slowly(door: Door) -> None:
    """The limit holds for each head of a connection."""
    door = other_door(door, head_timeout_secs=0.3)
    with door.connect() as client:
        client.send(request_of(door))
        assert client.final().status == 200
        client.send(b"GET / HT")
        rest = client.rest()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 408 ")
    only_request(door)
    door.settle()


@own_scene
def a_body_that_stands_still(door: Door) -> None:
    """Whoever sends nothing more of his body is told 408, or nothing, and cut off; the Actor never sees it whole."""
    door = other_door(door, body_idle_timeout_secs=0.3)
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: 5", method=b"POST") + b"he")
        rest = client.rest()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 408 ")
    door.settle()
    assert not any(request.is_whole for request in door.recorder.requests)


@own_scene
def a_body_that_is_slow_but_moves(door: Door) -> None:
    """The limit is for standing still, not for the whole."""
    door = other_door(door, body_idle_timeout_secs=0.5)
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: 8", method=b"POST"))
        for _ in range(8):
            client.pause(0.1)
            client.send(b"b")
        assert client.final().status == 200
    door.settle()


@own_scene
def a_connection_that_lies_idle(door: Door) -> None:
    """It is closed after its time."""
    door = other_door(door, keep_alive_secs=0.3)
    with door.connect() as client:
        client.send(request_of(door))
        assert client.final().status == 200
        began = time.monotonic()
        assert client.rest() == b""
        assert time.monotonic() - began < 2.5
    door.settle()


@own_scene
def an_answer_that_takes_longer_than_a_connection_may_lie_idle(door: Door) -> None:
    """Waiting for an answer is not idling."""
    door = other_door(door, keep_alive_secs=0.3)

    async def script(turn: Turn) -> None:
        await turn.body()
        await go.opened()
        await turn.write(OK)

    go = door.recorder.gate()
    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door))
        client.pause(0.8)
        go.open()
        assert client.final().status == 200
    door.settle()


@own_scene
def more_connections_than_there_may_be(door: Door) -> None:
    """One too many is told so or cut off; those that stand are served, and room that is made is used."""
    door = other_door(door, max_connections=3)
    clients = [door.connect() for _ in range(3)]
    try:
        for client in clients:
            is_in_step(door, client)
        with door.connect_bare() as extra:
            extra.send(request_of(door))
            rest = extra.rest()
            assert rest == b"" or rest.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 429 "))
        for client in clients:
            is_in_step(door, client)
    finally:
        for client in clients:
            client.sock.close()
    door.settle()
