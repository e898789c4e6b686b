"""
No I/O: the kinds of error that only the API has; those that other rooms raise too are in ``gateway.core.errors``.

    GreenroomError
    ├── InvalidRequest
    │   ├── InvalidValue               400 invalid-value               a run option outside its legal steps
    │   ├── UnknownBuildTag            400 unknown-build-tag
    │   ├── InvalidIdempotencyKey      400 invalid-idempotency-key
    │   ├── CannotRemoveRunningRun     400 cannot-remove-running-run
    │   ├── DeletingUnfinishedBuild    400 deleting-unfinished-build
    │   └── DeletingDefaultBuild       400 deleting-default-build
    ├── InvalidSignature               403 invalid-signature
    ├── BuildNotFound                  404 build-not-found
    ├── BodyTooSlow                    408 request-timeout
    ├── UnsupportedContentEncoding     415 unsupported-content-encoding
    ├── InvalidContentType             415 invalid-content-type-header
    └── StoresUnavailable              503 service-unavailable         nothing was changed; clients may repeat

Source of the types: the platform's published list; ``request-timeout`` and ``service-unavailable`` are Greenroom's own.
"""

from __future__ import annotations

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


class UnsupportedContentEncoding(GreenroomError):
    """A body in an encoding that can't be undone here."""

    http_status, error_type = 415, "unsupported-content-encoding"


class InvalidContentType(GreenroomError):
    """A body of another kind than the call takes."""

    http_status, error_type = 415, "invalid-content-type-header"


class StoresUnavailable(GreenroomError):
    """A store can't be reached."""

    http_status, error_type, retry_after_secs = 503, "service-unavailable", 2
