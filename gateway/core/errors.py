"""
No I/O: every error that reaches a caller, each with its HTTP status, API type and facts.

    GreenroomError
    ├── InvalidRequest              400 invalid-request
    │   ├── InvalidConfig           400 invalid-request   settings that contradict each other
    │   ├── InvalidRecordKey        400 invalid-record-key
    │   ├── DefinitionError         400 invalid-actor-definition   with file, line, expected
    │   └── SourceError             400 source-not-fetched   what a build was to fetch; mostly a status message
    ├── TokenNotProvided            401 token-not-provided
    │   └── UserNotAuthenticated    401 user-not-authenticated   the same at standby hosts
    ├── TokenNotFound               401 user-or-token-not-found
    ├── InsufficientPermissions     403 insufficient-permissions
    │   └── RequestNotLocked        403 request-not-locked   by who asks, in a request queue
    ├── RecordNotFound              404 record-not-found
    ├── PageNotFound                404 page-not-found
    ├── MethodNotAllowed            405 method-not-allowed
    ├── NameNotUnique               409 name-not-unique
    │   └── ActorNameNotUnique      409 actor-name-not-unique
    ├── NameNotVerified             409 name-not-verified   of a custom domain
    ├── TooManyNameChecks           503 too-many-name-checks
    ├── RequestTooLarge             413 request-too-large
    │   ├── HeadTooLarge            431 request-too-large
    │   └── TargetTooLong           414 request-too-large
    ├── RequestTooSlow              408 request-timeout
    ├── TooManyConnections          503 too-many-connections
    ├── CodingNotSupported          501 transfer-coding-not-supported
    ├── HttpVersionNotSupported     505 http-version-not-supported
    ├── LoopDetected                508 loop-detected
    ├── LaunchError                 why a run could not be started; told as StandbyRunFailed or a status message
    │   └── MachineTrouble          the same, where the Actor has no part in it
    └── StandbyError                errors at standby and live-view hosts
        ├── StandbyNotEnabled       400 standby-not-enabled
        ├── FirstBuildUnderWay      503 build-under-way   the Actor's only build is still being made
        ├── StandbyAsleep           503 standby-asleep   for requests that its owner lets wake nobody
        ├── StandbyRunFailed        503 standby-run-failed
        ├── StandbyRunFinished      503 standby-run-finished
        ├── StandbyRunNotReady      504 standby-run-not-ready
        │   └── LiveViewNotListening 503 standby-run-not-ready   by its live view, where nobody waits for it
        ├── StandbyBadGateway       502 standby-bad-gateway
        ├── StandbyResponseTimeout  504 standby-response-timeout
        ├── LiveViewEnded           410 run-finished
        ├── WaitingRoomFull         503 waiting-room-full
        ├── WaitedTooLong           503 waiting-room-timeout
        ├── StandbyQuarantined      503 standby-quarantined   its runs have failed, and it is left alone for a while
        ├── StandbyNoRoom           503 memory-limit-exceeded   no run of this size may be started for its owner
        ├── RecordsNotAsked         503 service-unavailable   who calls, or what is there, stands in the records alone
        └── ShuttingDown            503 shutting-down
    Conflict                        a compare-and-set lost; never shown, the caller reads again

Source of the types: the platform's published list; those of the waiting room are Greenroom's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Conflict(Exception):
    """A compare-and-set found another version than the one it was given: read again and decide again."""


class GreenroomError(Exception):
    """An error with a shape for callers: ``http_status``, ``error_type``, a message and, for the curious, ``data``."""

    http_status = 500
    error_type = "internal-server-error"
    retry_after_secs: int | None = None

    def __init__(self, message: str, *, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = dict(data or {})

    def body(self) -> dict[str, Any]:
        """The API's error envelope."""
        error: dict[str, Any] = {"type": self.error_type, "message": self.message}
        if self.data:
            error["data"] = self.data
        return {"error": error}


class InvalidRequest(GreenroomError):
    """The request does not say what it must; the message names the field and what is expected."""

    http_status, error_type = 400, "invalid-request"


class InvalidConfig(InvalidRequest):
    """Settings that contradict each other or leave their range."""


class InvalidRecordKey(InvalidRequest):
    """A key that no record of a key-value store may have."""

    error_type = "invalid-record-key"


class DefinitionError(InvalidRequest):
    """A mistake in an Actor's files, told with file, line and what is expected there."""

    error_type = "invalid-actor-definition"

    def __init__(self, file: str, line: int | None, problem: str) -> None:
        where = f"{file}:{line}" if line else file
        super().__init__(f"{where}: {problem}", data={"file": file, "line": line})
        self.file, self.line, self.problem = file, line, problem


class SourceError(InvalidRequest):
    """The source of a version can't be fetched, or may not be."""

    error_type = "source-not-fetched"


class TokenNotProvided(GreenroomError):
    """A call that needs a token came without one."""

    http_status, error_type = 401, "token-not-provided"

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message or "This call needs an API token: send it as 'Authorization: Bearer <token>' or '?token=<token>'."
        )


class UserNotAuthenticated(TokenNotProvided):
    """The same at standby and live-view hosts, where the platform uses another word."""

    error_type = "user-not-authenticated"


class TokenNotFound(GreenroomError):
    """The token is unknown, expired or revoked."""

    http_status, error_type = 401, "user-or-token-not-found"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "This API token is unknown, has expired or was revoked: use another one.")


class InsufficientPermissions(GreenroomError):
    """The token is good, but its scopes don't cover this call."""

    http_status, error_type = 403, "insufficient-permissions"


class RequestNotLocked(InsufficientPermissions):
    """A queue's request is not locked by the caller: the lock has expired, or somebody else holds it now."""

    error_type = "request-not-locked"


class RecordNotFound(GreenroomError):
    """There is no such record, or the caller may not know that there is one: both look the same."""

    http_status, error_type = 404, "record-not-found"

    def __init__(self, what: str = "Record") -> None:
        super().__init__(f"{what} was not found.")


class PageNotFound(GreenroomError):
    """No route of Greenroom's has this path."""

    http_status, error_type = 404, "page-not-found"


class MethodNotAllowed(GreenroomError):
    """The path exists, the method doesn't."""

    http_status, error_type = 405, "method-not-allowed"


class NameNotUnique(GreenroomError):
    """A name is taken already."""

    http_status, error_type = 409, "name-not-unique"


class ActorNameNotUnique(NameNotUnique):
    """The owner has an Actor of this name already."""

    error_type = "actor-name-not-unique"


class NameNotVerified(GreenroomError):
    """Nothing was found that proves a custom domain; the message says where it was looked for and what stood there."""

    http_status, error_type = 409, "name-not-verified"


class TooManyNameChecks(GreenroomError):
    """Custom domains are being checked, as many as may be at once."""

    http_status, error_type, retry_after_secs = 503, "too-many-name-checks", 10

    def __init__(self) -> None:
        super().__init__("Other custom domains are being checked at the moment. Try again in some seconds.")


class RequestTooLarge(GreenroomError):
    """A body beyond its limit."""

    http_status, error_type = 413, "request-too-large"


class RequestTooSlow(GreenroomError):
    """The head of a request, or the next piece of its body, did not come in time."""

    http_status, error_type = 408, "request-timeout"


class TooManyConnections(GreenroomError):
    """As many connections stand as may, in all or from one address."""

    http_status, error_type, retry_after_secs = 503, "too-many-connections", 1

    def __init__(self, setting: str) -> None:
        super().__init__(f"Too many connections are open (setting: {setting}). Close some, or try again in a moment.")


class HeadTooLarge(RequestTooLarge):
    """A request line and headers beyond their limit."""

    http_status = 431


class TargetTooLong(RequestTooLarge):
    """A request target beyond its limit."""

    http_status = 414


class CodingNotSupported(GreenroomError):
    """A body in a transfer coding other than ``chunked``: where it ends can't be told."""

    http_status, error_type = 501, "transfer-coding-not-supported"

    def __init__(self) -> None:
        super().__init__("Transfer-Encoding must be 'chunked' and nothing else: send the body in no other coding.")


class HttpVersionNotSupported(GreenroomError):
    """A request line of another version of HTTP than 1.0 and 1.1."""

    http_status, error_type = 505, "http-version-not-supported"

    def __init__(self) -> None:
        super().__init__("The request line must end with 'HTTP/1.1' or 'HTTP/1.0'.")


class LoopDetected(GreenroomError):
    """The request has come through Greenroom so often that it most likely goes round in a circle."""

    http_status, error_type = 508, "loop-detected"

    def __init__(self, hops: int) -> None:
        super().__init__(
            f"This request has come through Greenroom {hops} times already (header Via): does an Actor call itself?",
            data={"hops": hops},
        )


class LaunchError(GreenroomError):
    """
    A run could not be started; the message is the reason in words for its owner.

    The supervisor turns it into the run's status message, the proxy into ``standby-run-failed``.
    """

    http_status, error_type = 503, "run-failed"


class MachineTrouble(LaunchError):
    """What stood in the way is the machine's, not the Actor's: an engine that is down, a disk that is full."""


class StandbyError(GreenroomError):
    """An error at a standby or live-view host."""

    http_status, error_type = 502, "standby-bad-gateway"


class StandbyNotEnabled(StandbyError):
    """The Actor exists and the caller may run it, but it has no standby mode."""

    http_status, error_type = 400, "standby-not-enabled"

    def __init__(self) -> None:
        super().__init__(
            "This Actor doesn't have Standby mode enabled: set usesStandbyMode in .actor/actor.json "
            "or actorStandby.isEnabled by the API."
        )


class FirstBuildUnderWay(StandbyError):
    """There is nothing to run yet, but there will be as soon as the build that is being made has succeeded."""

    http_status, error_type, retry_after_secs = 503, "build-under-way", 5

    def __init__(self, build_id: str, build_number: str) -> None:
        super().__init__(
            f"The first build of this Actor ({build_number}) is still under way: try again when it has ended. "
            f"'greenroom logs {build_id}' shows how far it is.",
            data={"buildId": build_id},
        )


class StandbyAsleep(StandbyError):
    """No run serves, and the request is one that its Actor's owner lets wake nobody: a health checker's."""

    http_status, error_type, retry_after_secs = 503, "standby-asleep", 60

    def __init__(self) -> None:
        super().__init__(
            "This Actor sleeps, and its settings (actorStandby.idleIgnoredUserAgents, idleIgnoredPaths) keep requests "
            "such as this one from waking it. Any other request does."
        )


class RecordsNotAsked(StandbyError):
    """The records can't be reached, and without them it is not known who calls or what is there."""

    http_status, error_type, retry_after_secs = 503, "service-unavailable", 2

    def __init__(self) -> None:
        super().__init__(
            "Greenroom's records can't be reached at the moment, and what this request needs of them is not known yet. "
            "Nothing was started or sent: try again."
        )


class StandbyRunFailed(StandbyError):
    """A run could not be started at all."""

    http_status, error_type, retry_after_secs = 503, "standby-run-failed", 5


class StandbyRunFinished(StandbyError):
    """The run ended before its server answered."""

    http_status, error_type, retry_after_secs = 503, "standby-run-finished", 1


class StandbyRunNotReady(StandbyError):
    """The run is alive but its server never began to listen."""

    http_status, error_type, retry_after_secs = 504, "standby-run-not-ready", 5


class LiveViewNotListening(StandbyRunNotReady):
    """The run behind this live-view host does not listen now; nothing is held there, so the caller asks again."""

    http_status, retry_after_secs = 503, 1


class StandbyBadGateway(StandbyError):
    """The Actor's server dropped the connection or answered with something that is not HTTP."""

    http_status, error_type = 502, "standby-bad-gateway"


class StandbyResponseTimeout(StandbyError):
    """The Actor took the request but sent no first byte in time."""

    http_status, error_type = 504, "standby-response-timeout"


class LiveViewEnded(StandbyError):
    """The run behind this live-view host has ended; its address dies with it."""

    http_status, error_type = 410, "run-finished"


class WaitingRoomFull(StandbyError):
    """A pool already holds as many waiting requests as it may."""

    http_status, error_type, retry_after_secs = 503, "waiting-room-full", 5

    def __init__(self, held: int) -> None:
        super().__init__(
            f"{held} requests wait for this Actor already, as many as may wait at once "
            "(setting: waiting_room_size). Try again later.",
            data={"held": held},
        )
        self.held = held


class WaitedTooLong(StandbyError):
    """No run had room for the request within its deadline."""

    http_status, error_type, retry_after_secs = 503, "waiting-room-timeout", 5


class StandbyQuarantined(StandbyError):
    """Runs of the pool never served, or crashed soon after: none is started for a while."""

    http_status, error_type, retry_after_secs = 503, "standby-quarantined", 10

    def __init__(self, message: str, *, retry_after_secs: int, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, data={**(data or {}), "retryAfterSecs": retry_after_secs})
        self.retry_after_secs = retry_after_secs


class StandbyNoRoom(StandbyError):
    """A run of the pool would take more than its owner or the machine may give, and waiting does not help."""

    http_status, error_type, retry_after_secs = 503, "memory-limit-exceeded", 5

    def __init__(self, message: str, *, retry_after_secs: int, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, data={**(data or {}), "retryAfterSecs": retry_after_secs})
        self.retry_after_secs = retry_after_secs


class ShuttingDown(StandbyError):
    """Greenroom is stopping and takes nothing new."""

    http_status, error_type, retry_after_secs = 503, "shutting-down", 5

    def __init__(self) -> None:
        super().__init__("Greenroom is stopping and takes no new requests. Try again in a moment.")
