"""
No I/O: the kinds of error that only the API has; those that other rooms raise too are in ``gateway.core.errors``.

    GreenroomError
    ├── InvalidRequest
    │   ├── InvalidValue               400 invalid-value               a run option outside its legal steps
    │   ├── UnknownBuildTag            400 unknown-build-tag
    │   ├── InvalidIdempotencyKey      400 invalid-idempotency-key
    │   ├── CannotRemoveRunningRun     400 cannot-remove-running-run
    │   ├── DeletingUnfinishedBuild    400 deleting-unfinished-build
    │   ├── DeletingDefaultBuild       400 deleting-default-build
    │   ├── SchemaValidationFailed     400 schema-validation-error
    │   ├── DatasetViewNotFound        400 requested-dataset-view-does-not-exist
    │   ├── InvalidInput               400 invalid-input               a run's, told by field
    │   ├── InvalidInputSchema         400 invalid-input-schema
    │   └── RunFailed                  400 run-failed                  of one that was waited for
    ├── StandbyRunNotMigrated          400 standby-run-not-migrated
    ├── ActorMemoryLimitExceeded       402 actor-memory-limit-exceeded       clients may be told to wait and repeat
    ├── ConcurrentRunsLimitExceeded    402 concurrent-runs-limit-exceeded    the same
    ├── JobFinished                    403 job-finished
    ├── InvalidSignature               403 invalid-signature
    ├── BuildNotFound                  404 build-not-found
    ├── BodyTooSlow                    408 request-timeout
    ├── RunTimeoutExceeded             408 run-timeout-exceeded        it goes on
    ├── RunNotRunning                  409 run-not-running
    ├── RecordTooLarge                 413 record-too-large
    ├── RangeNotSatisfiable            416 range-not-satisfiable
    ├── UnsupportedContentEncoding     415 unsupported-content-encoding
    ├── InvalidContentType             415 invalid-content-type-header
    ├── NotImplementedHere             501 not-implemented             nothing was changed
    └── StoresUnavailable              503 service-unavailable         nothing was changed; clients may repeat

Source of the types: the platform's published list; ``request-timeout``, ``range-not-satisfiable`` and
``service-unavailable`` are Greenroom's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.errors import GreenroomError, InvalidRequest


class InvalidValue(InvalidRequest):
    """A value of the right kind that is not a legal one."""

    error_type = "invalid-value"


class UnknownBuildTag(InvalidRequest):
    """The Actor has builds, but none under this tag or number."""

    error_type = "unknown-build-tag"


class InvalidIdempotencyKey(InvalidRequest):
    """The key is malformed, or was used for a start of another Actor."""

    error_type = "invalid-idempotency-key"


class CannotRemoveRunningRun(InvalidRequest):
    """Only a finished run can be deleted."""

    error_type = "cannot-remove-running-run"

    def __init__(self) -> None:
        super().__init__("This run has not finished: abort it first, then delete it.")


class DeletingUnfinishedBuild(InvalidRequest):
    """Only a finished build can be deleted."""

    error_type = "deleting-unfinished-build"

    def __init__(self) -> None:
        super().__init__("This build has not finished: abort it first, then delete it.")


class DeletingDefaultBuild(InvalidRequest):
    """A build that a tag points to is in use."""

    error_type = "deleting-default-build"

    def __init__(self, tags: tuple[str, ...]) -> None:
        super().__init__(
            f"The tag {', '.join(tags)} points to this build: move or remove it first, then delete the build.",
            data={"tags": list(tags)},
        )
        self.tags = tags


class SchemaValidationFailed(InvalidRequest):
    """Items of a push do not fit the schema of the dataset; none of it was stored."""

    error_type = "schema-validation-error"

    def __init__(self, invalid_items: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("Schema validation failed", data={"invalidItems": list(invalid_items)})


class DatasetViewNotFound(InvalidRequest):
    """The schema of the dataset has no view of this name."""

    error_type = "requested-dataset-view-does-not-exist"

    def __init__(self, name: str) -> None:
        super().__init__(f"This dataset has no view '{name[:100]}': its Actor's dataset schema lists those it has.")


class InvalidInput(InvalidRequest):
    """The input of a run is not what its Actor takes; nothing was started. *fields* are the paths of what is wrong."""

    error_type = "invalid-input"

    def __init__(self, message: str, fields: Sequence[str] = ()) -> None:
        named = list(dict.fromkeys(field for field in fields if field))
        super().__init__(message, data={"field": named[0] if len(named) == 1 else named} if named else None)


class InvalidInputSchema(InvalidRequest):
    """The build's input schema is none; nothing was started."""

    error_type = "invalid-input-schema"

    def __init__(self, problem: str) -> None:
        super().__init__(f"Input schema is not valid: {problem}")


class RunFailed(InvalidRequest):
    """A run that was waited for did not succeed."""

    error_type = "run-failed"

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(
            f"Actor run did not succeed (run ID: {run_id}, status: {status}).",
            data={"runId": run_id, "status": status},
        )


class StandbyRunNotMigrated(GreenroomError):
    """A standby run has no state to move: it is replaced."""

    http_status, error_type = 400, "standby-run-not-migrated"

    def __init__(self) -> None:
        super().__init__(
            "A standby run is replaced, not migrated: abort it gracefully, and the next request starts another one."
        )


class ActorMemoryLimitExceeded(GreenroomError):
    """A run would take more memory than its user may use at once."""

    http_status, error_type = 402, "actor-memory-limit-exceeded"


class ConcurrentRunsLimitExceeded(GreenroomError):
    """As many runs of the user live as may."""

    http_status, error_type = 402, "concurrent-runs-limit-exceeded"


class JobFinished(GreenroomError):
    """What is asked for can only be done to a run that lives."""

    http_status, error_type = 403, "job-finished"

    def __init__(self, status: str) -> None:
        # Tests of the official clients look for these two words.
        super().__init__(f"This run has already finished ({status}): start a new one.", data={"status": status})


class RunNotRunning(GreenroomError):
    """The run lives, but stands where what is asked for can't be done to it."""

    http_status, error_type = 409, "run-not-running"

    def __init__(self, status: str) -> None:
        super().__init__(
            f"This run is {status}, and only one that is RUNNING can be restarted: wait until it is, or start a new "
            "one where it is about to end.",
            data={"status": status},
        )


class InvalidSignature(GreenroomError):
    """The signature in the query is not right for what the path names, or has expired."""

    http_status, error_type = 403, "invalid-signature"

    def __init__(self) -> None:
        super().__init__("The signature in this address is wrong or has expired: ask its owner for a new one.")


class BuildNotFound(GreenroomError):
    """The Actor has no build that a run could be started from."""

    http_status, error_type = 404, "build-not-found"


class BodyTooSlow(GreenroomError):
    """The request's body did not arrive in time."""

    http_status, error_type = 408, "request-timeout"


class RunTimeoutExceeded(GreenroomError):
    """A run was not waited for to its end; it goes on."""

    http_status, error_type = 408, "run-timeout-exceeded"

    def __init__(self, run_id: str, why: str) -> None:
        super().__init__(
            f"{why} The run {run_id} is not affected: ask /v2/actor-runs/{run_id} for it.", data={"runId": run_id}
        )


class RecordTooLarge(GreenroomError):
    """A record of a key-value store above the bound."""

    http_status, error_type = 413, "record-too-large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The record is larger than {limit} bytes.", data={"limitBytes": limit})


class RangeNotSatisfiable(GreenroomError):
    """The asked bytes lie behind the last one."""

    http_status, error_type = 416, "range-not-satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The record has only {size} bytes.", data={"size": size})


class UnsupportedContentEncoding(GreenroomError):
    """A body in an encoding that can't be undone here."""

    http_status, error_type = 415, "unsupported-content-encoding"


class InvalidContentType(GreenroomError):
    """A body of another kind than the call takes."""

    http_status, error_type = 415, "invalid-content-type-header"


class NotImplementedHere(GreenroomError):
    """The platform can do this, Greenroom can't."""

    http_status, error_type = 501, "not-implemented"


class StoresUnavailable(GreenroomError):
    """A store can't be reached."""

    http_status, error_type, retry_after_secs = 503, "service-unavailable", 2
