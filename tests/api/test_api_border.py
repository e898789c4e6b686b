"""What holds for every answer of the API, errors included."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.api.app import api_app
from gateway.state.ports import StateUnavailable


@pytest.mark.parametrize("path", ["/v2", "/v2/nothing", "/v2/actors/x/y/z/q", "/", "/v3/users/me"])
async def test_unknown_page(bob: Any, path: str) -> None:
    """A path that is no route is told in the envelope, with the platform's type."""
    answer = await bob.http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "page-not-found"


async def test_wrong_method(bob: Any) -> None:
    """A method that a page doesn't have is 405, with those that it has."""
    answer = await bob.http.delete("/v2/actors")
    assert answer.status_code == 405
    assert answer.json()["error"]["type"] == "method-not-allowed"
    assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize("path", ["/v2/users/me", "/v2/nothing", "/v2/actors/nothing"])
async def test_headers_of_every_answer(bob: Any, path: str) -> None:
    """Browsers may read good answers and errors alike, and must not guess their kind."""
    answer = await bob.http.get(path)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_preflight(api: Any) -> None:
    """A browser's preflight needs no token and is answered with the headers that it asked for."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://localhost") as http:
        answer = await http.options(
            "/v2/actors",
            headers={
                "Origin": "https://example.com",
                "Access-Control-Request-Method": "PUT",
                "Access-Control-Request-Headers": "authorization, x-thing",
            },
        )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-headers"] == "authorization, x-thing"
    assert "PUT" in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize("path", ["/v2/actors/", "/v2/acts", "/v2/acts/", "/v2/users/me/", "/v2/acts/~hello/"])
async def test_spellings(bob: Any, path: str) -> None:
    """Both spellings and a slash at the end lead to the same page, without a redirect."""
    await bob.built_actor()
    assert (await bob.http.get(path)).status_code == 200


async def test_method_in_the_query(bob: Any) -> None:
    """``?method=`` on a GET asks for another method; on others it does nothing."""
    actor = await bob.built_actor()
    run = await bob.get(f"/actors/{actor['id']}/runs?method=POST", 201)
    assert run["actId"] == actor["id"]
    assert (await bob.http.put("/v2/actors?method=GET")).status_code == 405


@pytest.mark.parametrize(
    ("headers", "query", "status", "kind"),
    [
        pytest.param({}, "", 401, "token-not-provided", id="no token"),
        pytest.param({"Authorization": "Bearer "}, "", 401, "token-not-provided", id="an empty token"),
        pytest.param({"Authorization": "Basic dTpw"}, "", 401, "token-not-provided", id="another scheme"),
        pytest.param({"Authorization": "Bearer nonsense"}, "", 401, "user-or-token-not-found", id="unknown in header"),
        pytest.param({}, "?token=nonsense", 401, "user-or-token-not-found", id="unknown in query"),
        pytest.param({"Authorization": "Bearer \xff\xfe"}, "", 401, "user-or-token-not-found", id="no text at all"),
    ],
)
async def test_tokens(api: Any, headers: dict[str, str], query: str, status: int, kind: str) -> None:
    """Without a good token nothing is told."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://localhost") as http:
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = await http.get(f"/v2/users/me{query}", headers=raw)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)


async def test_token_in_the_query(api: Any, bob: Any) -> None:
    """A token may stand in the query instead of the header."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://localhost") as http:
        assert (await http.get(f"/v2/users/me?token={bob.token}")).json()["data"]["username"] == "bob"


async def test_scopes(api: Any) -> None:
    """A token that lacks a scope is told which; writing implies reading."""
    writer = await api.caller(api.bob.user, frozenset({"actors:write"}))
    actor = await writer.built_actor()
    await writer.get(f"/actors/{actor['id']}")
    refused = await writer.post(f"/actors/{actor['id']}/runs", 403)
    assert refused["type"] == "insufficient-permissions"
    assert "actors:run" in refused["message"]
    reader = await api.caller(api.bob.user, frozenset({"actors:read"}))
    await reader.put(f"/actors/{actor['id']}", 403, json={"title": "x"})


class _Broken:
    """Records that fail at everything with the given error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def fail(*args: Any, **options: Any) -> Any:
            raise self._error

        return fail


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        pytest.param(RuntimeError("the password is hunter2"), 500, "internal-server-error", id="a bug"),
        pytest.param(StateUnavailable("db-host-7 refuses hunter2"), 503, "service-unavailable", id="no database"),
    ],
)
async def test_unexpected(
    api: Any, bob: Any, error: Exception, status: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller of something that failed learns that it did; why is for the log, and tokens are for nobody."""
    import dataclasses

    from gateway.auth import Authenticator

    records: Any = _Broken(error)
    broken = dataclasses.replace(
        api.services,
        state=dataclasses.replace(api.services.state, records=records),
        auth=Authenticator(api.services.state.records, cache_secs=0, now=api.clock.now, clock=lambda: 0.0),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api_app(broken)), base_url="http://localhost") as http:
        answer = await http.get(f"/v2/actors/hello?token={bob.token}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert "hunter2" not in answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "hunter2" in caplog.text
    assert bob.token not in caplog.text


async def test_compressed_body(bob: Any) -> None:
    """Clients compress their bodies."""
    import json

    import brotli

    body = brotli.compress(json.dumps({"name": "hello"}).encode())
    actor = await bob.post("/actors", content=body, headers={"Content-Encoding": "br"})
    assert actor["name"] == "hello"


async def test_large_body(api: Any, bob: Any) -> None:
    """A body beyond the setting is 413."""
    refused = await bob.post("/actors", 413, content=b" " * (api.services.settings.max_api_body_bytes + 1))
    assert refused["type"] == "request-too-large"


async def test_unknown_encoding(bob: Any) -> None:
    """A body in an unknown encoding is 415."""
    refused = await bob.post("/actors", 415, content=b"x", headers={"Content-Encoding": "zstd"})
    assert refused["type"] == "unsupported-content-encoding"
