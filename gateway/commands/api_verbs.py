"""``greenroom push | ps | logs | abort | migrate``: what goes through the API of a running Greenroom."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from gateway.actor_files.snapshot import pack_folder
from gateway.core.errors import GreenroomError
from gateway.core.lifecycle import RunStatus
from gateway.core.times import parse_iso
from gateway.data_dir import read_token, server_url, token_path
from gateway.refusals import USAGE, Refused
from gateway.settings import Settings

_ANSWER_SECS = 90.0  # more than the 60 s that the API may hold a waiting call
_CONNECT_SECS = 5.0
_ENDED = frozenset(status for status in RunStatus if status.is_terminal)


class Api:
    """The API of one Greenroom, as the user who holds the token. Every method raises Refused, in words."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The ``data`` of the answer; None where it has no body."""
        with self._told():
            answer = self._client.request(method, path, **options)
            self._check(answer)
            return answer.json()["data"] if answer.content else None

    def lines(self, path: str, **params: str) -> Iterator[str]:
        """The lines of an answer in plain text, as they come."""
        # A followed log is silent for as long as its run is.
        limits = httpx.Timeout(_ANSWER_SECS, connect=_CONNECT_SECS, read=None)
        with self._told(), self._client.stream("GET", path, params=params, timeout=limits) as answer:
            if answer.is_error:
                answer.read()
            self._check(answer)
            yield from answer.iter_lines()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise Refused(
                f"no Greenroom answers at {self._client.base_url}: start one with 'greenroom serve', "
                "or give its address with --url."
            ) from error
        except httpx.HTTPError as error:
            raise Refused(f"the call to {self._client.base_url} failed: {error}.") from error

    def _check(self, answer: httpx.Response) -> None:
        if not answer.is_error:
            return
        try:
            message = str(answer.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            message = f"{self._client.base_url} answered {answer.status_code}: is it a Greenroom?"
        raise Refused(message)


@contextmanager
def connect(settings: Settings, url: str | None) -> Iterator[Api]:
    """
    The API at *url*, else of the server that runs on the data folder, else at the port of the settings.

    The token is that of ``GREENROOM_TOKEN``, else the one in ``--token-file``, else the one in the data folder.
    """
    base = (url or server_url(settings.data) or f"http://127.0.0.1:{settings.port}").rstrip("/").removesuffix("/v2")
    found = settings.token or read_token(token_path(settings))
    if found is None:
        raise Refused(
            f"no token: give one in GREENROOM_TOKEN or by --token-file (none lies in {token_path(settings)}).",
            exit_code=USAGE,
        )
    try:
        parsed = httpx.URL(base)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise httpx.InvalidURL("an address such as http://127.0.0.1:8010 is expected")
    except httpx.InvalidURL as error:
        raise Refused(f"--url {base}: {error}.", exit_code=USAGE) from error
    with httpx.Client(
        base_url=f"{base}/v2/",
        headers={"Authorization": f"Bearer {found}"},
        timeout=httpx.Timeout(_ANSWER_SECS, connect=_CONNECT_SECS),
        # A proxy for the way out has nothing to do with a server on this machine.
        trust_env=parsed.host not in ("127.0.0.1", "localhost", "::1"),
    ) as client:
        yield Api(client)


def push(api: Api, folder: Path) -> int:
    """Send *folder*, print the build's log as it comes and the standby address; 0 where the build succeeded."""
    if not folder.is_dir():
        raise Refused(f"{folder} is no folder.", exit_code=USAGE)
    try:
        snapshot = pack_folder(folder)
    except GreenroomError as error:
        raise Refused(error.message) from error
    pushed = api.call(
        "POST",
        "greenroom/push",
        content=snapshot.archive,
        headers={"Content-Type": "application/gzip"},
    )
    build = pushed["build"]
    try:
        print_log(api, build["id"], follow=True)
        while RunStatus(build["status"]) not in _ENDED:
            build = api.call("GET", f"actor-builds/{build['id']}", params={"waitForFinish": 60})
    except KeyboardInterrupt:
        print(
            f"\ngreenroom: the build {build['buildNumber']} goes on: 'greenroom logs --follow {build['id']}' shows it, "
            f"'greenroom abort {build['id']}' ends it.",
            file=sys.stderr,
        )
        raise
    if build["status"] != RunStatus.SUCCEEDED:
        # All of it stands in the log above.
        why = next(iter((build.get("statusMessage") or "").splitlines()), "see its log")
        raise Refused(f"the build {build['buildNumber']} ended {build['status']}: {why}")
    actor = pushed["actor"]
    print(f"{actor['username']}/{actor['name']} {build['buildNumber']}")
    if actor.get("standbyUrl"):
        print(actor["standbyUrl"])
    return 0


def list_runs(api: Api) -> int:
    """Print the runs that live, the newest first."""
    statuses = ",".join(status for status in RunStatus if status not in _ENDED)
    live = api.call("GET", "actor-runs", params={"desc": "1", "status": statuses})["items"]
    if not live:
        print("greenroom: no run lives.", file=sys.stderr)
        return 0
    names: dict[str, str] = {}
    for run in live:
        if run["actId"] not in names:
            names[run["actId"]] = _actor_name(api, run["actId"])
    width = max(len(name) for name in names.values())
    for run in live:
        age = rough((datetime.now(UTC) - parse_iso(run["startedAt"])).total_seconds())
        print(f"{run['id']}  {names[run['actId']]:<{width}}  {run['buildNumber']:<8}  {run['status']:<10}  {age:>4}")
    return 0


def print_log(api: Api, job_id: str, *, follow: bool) -> int:
    """Print the log of a run or build; with *follow* until it has ended."""
    for line in api.lines(f"logs/{job_id}", **({"stream": "1"} if follow else {})):
        print(line, flush=follow)
    return 0


def abort(api: Api, run_id: str, *, gracefully: bool) -> int:
    """Ask for the end of a run, and wait until it has come; builds are ended at once."""
    try:
        run = api.call("POST", f"actor-runs/{run_id}/abort", params={"gracefully": "1"} if gracefully else {})
    except Refused as refused:
        try:
            build = api.call("POST", f"actor-builds/{run_id}/abort")
        except Refused:
            raise refused from None
        print(f"{build['id']} {build['status']}")
        return 0
    while RunStatus(run["status"]) not in _ENDED:
        run = api.call("GET", f"actor-runs/{run_id}", params={"waitForFinish": 60})
    print(f"{run['id']} {run['status']}")
    return 0


def migrate(api: Api, run_id: str) -> int:
    """Have a run migrated, and wait until it has started again or ended."""
    run = api.call("POST", f"greenroom/runs/{run_id}/migrate")
    count = run["stats"]["migrationCount"]
    print(f"{run['id']} is asked to save its state and start again.", file=sys.stderr)
    while RunStatus(run["status"]) not in _ENDED and run["stats"]["migrationCount"] == count:
        run = api.call("GET", f"actor-runs/{run_id}", params={"waitForFinish": 1})
    print(f"{run['id']} {run['status']}")
    return 0


def _actor_name(api: Api, actor_id: str) -> str:
    try:
        actor = api.call("GET", f"actors/{actor_id}")
    except Refused:  # deleted meanwhile: its id has to do
        return actor_id
    return f"{actor['username']}/{actor['name']}"


def rough(secs: float) -> str:
    """A duration as people say it: 40s, 12m, 3h, 5d."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "m"), (172_800, 3600, "h")):
        if secs < limit:
            return f"{secs / unit:.0f}{name}"
    return f"{secs / 86_400:.0f}d"
