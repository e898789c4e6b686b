"""A whole API over real records, blobs and signals, two users who know nothing of each other, and their clients."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.api.app import api_app
from gateway.auth import Authenticator, run_token
from gateway.builds import Builder
from gateway.core.ids import api_token, record_id, token_hash
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Run, Token, User
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.services import Services, new_id
from gateway.settings import Settings
from gateway.state.blobs import open_blobs
from gateway.state.changes import change_run
from gateway.state.ports import Changed, State
from gateway.state.records import open_records
from gateway.state.signals_memory import MemorySignals
from gateway.urls import Urls

SOURCE_FILES = [
    {
        "name": ".actor/actor.json",
        "format": "TEXT",
        "content": '{"actorSpecification": 1, "name": "hello", "version": "0.1"}',
    },
    {"name": "main.py", "format": "TEXT", "content": "print('hello')\n"},
    {"name": "Dockerfile", "format": "TEXT", "content": 'FROM python:3.12\nCOPY . ./\nCMD ["python", "main.py"]\n'},
]
VERSION = {"versionNumber": "0.1", "sourceType": "SOURCE_FILES", "buildTag": "latest", "sourceFiles": SOURCE_FILES}


@dataclass
class Clock:
    """A time of day that stands still until a test moves it."""

    at: datetime = field(default_factory=lambda: datetime(2026, 3, 4, 5, 6, 7, 890000, UTC))

    def now(self) -> datetime:
        return self.at

    def pass_by(self, **units: float) -> None:
        self.at += timedelta(**units)


@dataclass
class Caller:
    """One user and the client that holds his token."""

    user: User
    token: str
    http: httpx.AsyncClient

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """What ``data`` (or ``error``) holds of an answer that must have *status*."""
        answer = await self.http.request(method, f"/v2{path}", **options)
        assert answer.status_code == status, answer.text
        if not answer.content:
            return None
        body = answer.json()
        return body["data"] if status < 400 else body["error"]

    async def get(self, path: str, status: int = 200, **options: Any) -> Any:
        return await self.ask("GET", path, status, **options)

    async def post(self, path: str, status: int = 201, **options: Any) -> Any:
        return await self.ask("POST", path, status, **options)

    async def put(self, path: str, status: int = 200, **options: Any) -> Any:
        return await self.ask("PUT", path, status, **options)

    async def delete(self, path: str, status: int = 204, **options: Any) -> Any:
        return await self.ask("DELETE", path, status, **options)

    async def built_actor(self, name: str = "hello", **fields: Any) -> Any:
        """A new Actor with a finished build under ``latest``."""
        actor = await self.post("/actors", json={"name": name, "versions": [VERSION], **fields})
        build = await self.post(f"/actors/{actor['id']}/builds?version=0.1&waitForFinish=30")
        assert build["status"] == "SUCCEEDED", build
        return actor


@dataclass
class Api:
    """The app, what it is made of, and its callers."""

    services: Services
    clock: Clock
    app: Any
    bob: Caller
    eve: Caller
    _stack: AsyncExitStack

    async def caller(self, user: User, scopes: frozenset[str] = frozenset({"*"})) -> Caller:
        """*user* with a new token."""
        token = api_token(os.urandom(32))
        await self.services.state.records.add_token(
            Token(
                id=record_id(os.urandom(16)),
                user_id=user.id,
                name="test",
                token_hash=token_hash(token),
                scopes=scopes,
                created_at=self.clock.now(),
            )
        )
        return await self.holder(user, token)

    async def holder(self, user: User, token: str) -> Caller:
        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://api.localhost",
            headers={"Authorization": f"Bearer {token}"},
        )
        return Caller(user, token, await self._stack.enter_async_context(http))

    async def run_itself(self, run: Any) -> Caller:
        """The token of *run*, as its Actor has it."""
        return await self.holder(self.bob.user, run_token(self.services.box, run["id"]))

    async def supervise(self, run: Any, **changes: Any) -> Run:
        """Change *run* as the supervisor would, and tell it."""
        state = self.services.state
        changed = await change_run(state.records, run["id"], lambda present: replace(present, **changes))
        await state.signals.changed(Changed(kind="run", id=changed.id))
        return changed

    async def finish(self, run: Any, status: RunStatus = RunStatus.SUCCEEDED) -> Run:
        return await self.supervise(run, status=status, finished_at=self.clock.now(), exit_code=0)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """Everything, empty but for the users bob and eve."""
    async with AsyncExitStack() as stack:
        clock = Clock()
        records = await stack.enter_async_context(open_records(f"sqlite+aiosqlite:///{tmp_path}/records.db"))
        blobs = open_blobs(tmp_path / "blobs")
        state = State(records=records, blobs=blobs, signals=MemorySignals(), storages=records.storages)
        box = SecretBox(b"a key for tests")
        logs = Logs(tmp_path, blobs)
        settings = Settings(data=tmp_path, token_cache_secs=0)
        services = Services(
            settings=settings,
            state=state,
            auth=Authenticator(records, cache_secs=0, now=clock.now, clock=lambda: clock.at.timestamp()),
            box=box,
            logs=logs,
            urls=Urls(scheme="http", domain="localhost", port=8010, local_port=8010),
            builder=Builder(state, logs, box, now=clock.now, new_id=new_id),
            now=clock.now,
        )
        users = [
            User(id=record_id(os.urandom(16)), username=name, is_admin=name == "bob", created_at=clock.now())
            for name in ("bob", "eve")
        ]
        for user in users:
            await records.add_user(user)
        api = Api(services, clock, api_app(services), None, None, stack)  # type: ignore[arg-type]
        api.bob, api.eve = [await api.caller(user) for user in users]
        yield api


async def _until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        for _ in itertools.count():
            if holds():
                return
            await asyncio.sleep(0.005)


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    """Wait until a condition holds, for a bounded time."""
    return _until


@pytest.fixture
def bob(api: Api) -> Caller:
    return api.bob


@pytest.fixture
def eve(api: Api) -> Caller:
    return api.eve


@pytest.fixture
async def nobody(api: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://api.localhost") as http:
        yield http
