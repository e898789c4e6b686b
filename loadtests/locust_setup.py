"""What Locust's users need on a Greenroom: where it is, with which token, and the Actors that they use."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.actor_files.snapshot import pack_folder

_ACTORS = Path(__file__).parent / "actors"
_CALL_SECS = 120
WARM, CHORES = "load-usage", "load-chores"
SLEEPING = tuple(f"load-sleeper-{number}" for number in range(8))
# Shorter than the pause of whoever wakes them, so that nearly each call is a wake.
_SLEEPER = {"idleTimeoutSecs": 2, "desiredRequestsPerActorRun": 5, "maxRequestsPerActorRun": 10}


class SetupFailed(Exception):
    """The Greenroom can't be used for a load test; the text says why and what to do."""


@dataclass(frozen=True)
class Site:
    """One Greenroom: its address, the domain below which its hosts are, the token and name of its user."""

    address: str
    port: int
    domain: str
    token: str
    user: str

    def host(self, actor: str) -> str:
        """The ``Host`` of a standby Actor."""
        return f"{self.user}--{actor}.{self.domain}:{self.port}"

    @property
    def authorization(self) -> dict[str, str]:
        """The header that says who calls."""
        return {"Authorization": f"Bearer {self.token}"}

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Any:
        """The ``data`` of an answer of the API. Raises SetupFailed."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=_CALL_SECS)
        try:
            connection.request(method, f"/v2{path}", body, {**self.authorization, "Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read()
        except OSError as error:
            raise SetupFailed(f"{self.address}:{self.port} can't be reached: {error}") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise SetupFailed(f"{method} /v2{path} was answered {answer.status}: {text[:300].decode(errors='replace')}")
        return json.loads(text)["data"]


def site_of(url: str | None, environment: Mapping[str, str] = os.environ) -> Site:
    """
    The Greenroom at *url*, Locust's ``--host``, with the token in ``GREENROOM_TOKEN``.

    ``GREENROOM_DOMAIN`` names its domain where that is not ``localhost``. Raises SetupFailed.
    """
    parts = urlsplit(url or "")
    if parts.scheme != "http" or not parts.hostname:
        raise SetupFailed("Locust needs --host http://ADDRESS:PORT, where Greenroom speaks plain HTTP.")
    token = environment.get("GREENROOM_TOKEN", "")
    if not token:
        raise SetupFailed("GREENROOM_TOKEN has to hold a token of the Greenroom that is called.")
    domain = environment.get("GREENROOM_DOMAIN", "localhost")
    nobody = Site(parts.hostname, parts.port or 80, domain, token, "")
    user = nobody.call("GET", "/users/me")["username"]
    return Site(nobody.address, nobody.port, domain, token, user)


def push_actors(site: Site) -> None:
    """All Actors that the users call are there, each in one build. Raises SetupFailed."""
    with tempfile.TemporaryDirectory(prefix="greenroom-locust-", ignore_cleanup_errors=True) as folder:
        push_copy(site, Path(folder), "usage", WARM, {})
        push_copy(site, Path(folder), "chores", CHORES, {})
        for name in SLEEPING:
            push_copy(site, Path(folder), "usage", name, _SLEEPER)


def push_copy(site: Site, folder: Path, source: str, name: str, standby: Mapping[str, Any]) -> None:
    """
    The Actor *source* of the load tests is there under another *name*, with these settings beside its own, and built.

    The copy is made in *folder*. Raises SetupFailed.
    """
    copy = folder / name
    shutil.copytree(_ACTORS / source, copy)
    path = copy / ".actor" / "actor.json"
    definition = json.loads(path.read_text()) | {"name": name}
    if standby:
        definition["actorStandby"] |= standby
    path.write_text(json.dumps(definition))
    push(site, copy)


def push(site: Site, folder: Path) -> None:
    """The folder becomes an Actor, and is built. Raises SetupFailed."""
    build = site.call("POST", "/greenroom/push", pack_folder(folder).archive, "application/gzip")["build"]
    while not build.get("finishedAt"):
        build = site.call("GET", f"/actor-builds/{build['id']}?waitForFinish=60")
    if build["status"] != "SUCCEEDED":
        raise SetupFailed(f"the build of {folder.name} ended {build['status']}: see its log, build {build['id']}")
