"""Every error that reaches a caller: its status, its type and its envelope."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from gateway.core import errors
from gateway.core.errors import (
    Conflict,
    DefinitionError,
    GreenroomError,
    RecordNotFound,
    ShuttingDown,
    StandbyError,
    StandbyNotEnabled,
    StandbyRunFinished,
    TokenNotFound,
    TokenNotProvided,
    WaitingRoomFull,
)


def all_errors(base: type[GreenroomError]) -> Iterator[type[GreenroomError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from all_errors(kind)


PUBLISHED = {
    "InvalidRequest": (400, "invalid-request"),
    "InvalidConfig": (400, "invalid-request"),
    "DefinitionError": (400, "invalid-actor-definition"),
    "TokenNotProvided": (401, "token-not-provided"),
    "UserNotAuthenticated": (401, "user-not-authenticated"),
    "TokenNotFound": (401, "user-or-token-not-found"),
    "InsufficientPermissions": (403, "insufficient-permissions"),
    "RecordNotFound": (404, "record-not-found"),
    "PageNotFound": (404, "page-not-found"),
    "MethodNotAllowed": (405, "method-not-allowed"),
    "NameNotUnique": (409, "name-not-unique"),
    "ActorNameNotUnique": (409, "actor-name-not-unique"),
    "RequestTooLarge": (413, "request-too-large"),
    "HeadTooLarge": (431, "request-too-large"),
    "StandbyNotEnabled": (400, "standby-not-enabled"),
    "StandbyAsleep": (503, "standby-asleep"),
    "StandbyRunFailed": (503, "standby-run-failed"),
    "StandbyRunFinished": (503, "standby-run-finished"),
    "StandbyRunNotReady": (504, "standby-run-not-ready"),
    "StandbyBadGateway": (502, "standby-bad-gateway"),
    "StandbyResponseTimeout": (504, "standby-response-timeout"),
    "StandbyQuarantined": (503, "standby-quarantined"),
    "StandbyNoRoom": (503, "memory-limit-exceeded"),
    "WaitingRoomFull": (503, "waiting-room-full"),
    "WaitedTooLong": (503, "waiting-room-timeout"),
    "ShuttingDown": (503, "shutting-down"),
    "LiveViewEnded": (410, "run-finished"),
    "LiveViewNotListening": (503, "standby-run-not-ready"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_status_and_type(name: str) -> None:
    """Clients branch on these: they change only with a major version."""
    kind = getattr(errors, name)
    assert (kind.http_status, kind.error_type) == PUBLISHED[name]


@pytest.mark.parametrize("kind", sorted(set(all_errors(GreenroomError)), key=lambda kind: kind.__name__))
def test_every_error_is_well_formed(kind: type[GreenroomError]) -> None:
    """An HTTP error status, a type in kebab case, and a pause to wait wherever trying again helps (503)."""
    assert 400 <= kind.http_status < 600
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.error_type)
    if issubclass(kind, StandbyError) and kind.http_status == 503:
        assert kind.retry_after_secs
    if kind.http_status < 500:
        assert kind.retry_after_secs is None


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(TokenNotProvided(), id="no token"),
        pytest.param(TokenNotFound(), id="a bad token"),
        pytest.param(StandbyNotEnabled(), id="no standby mode"),
        pytest.param(ShuttingDown(), id="shutting down"),
        pytest.param(RecordNotFound("Actor"), id="no record"),
    ],
)
def test_messages_are_sentences(error: GreenroomError) -> None:
    """Also where nothing was said by the caller."""
    assert error.message == str(error)
    assert error.message[0].isupper()
    assert error.message.endswith(".")


def test_the_envelope() -> None:
    """``{error: {type, message, data?}}``; data only where there are facts."""
    assert RecordNotFound("Actor").body() == {"error": {"type": "record-not-found", "message": "Actor was not found."}}
    finished = StandbyRunFinished("It ended.", data={"runId": "r", "exitCode": 3})
    assert finished.body()["error"]["data"] == {"runId": "r", "exitCode": 3}
    assert json.loads(json.dumps(finished.body())) == finished.body()


def test_a_mistake_in_a_file_is_told_with_its_place() -> None:
    """File, line and what is expected; without a line where there is none."""
    at_line = DefinitionError(".actor/actor.json", 7, "a comma is expected")
    assert at_line.message == ".actor/actor.json:7: a comma is expected"
    assert at_line.data == {"file": ".actor/actor.json", "line": 7}
    assert DefinitionError("Dockerfile", None, "no CMD").message == "Dockerfile: no CMD"


def test_a_full_waiting_room_says_how_full() -> None:
    """The number, and the setting that bounds it."""
    full = WaitingRoomFull(1000)
    assert "1000" in full.message
    assert "waiting_room_size" in full.message
    assert full.data == {"held": 1000}


def test_a_lost_compare_and_set_is_never_shown() -> None:
    """It is not among the errors for callers: whoever meets it reads again."""
    assert not issubclass(Conflict, GreenroomError)
