"""Who may call what: standby hosts, live views and the API, with real tokens at a real server and real runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from journeys.greenroom import TOKEN, Greenroom, error_of, eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server for all of these tests; each makes the Actors that it changes or counts."""
    async with Greenroom(tmp_path_factory.mktemp("access") / "data") as server:
        await server.probe("warm")
        await server.probe("open", {"public": True})
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(greenroom: Greenroom) -> str:
    """The token of a second user, who has an Actor ``theirs`` of his own."""
    token = await greenroom.user("other")
    await greenroom.probe("theirs", token=token)
    return token


async def all_runs(greenroom: Greenroom, *tokens: str) -> list[dict[str, Any]]:
    return [run for token in tokens for run in await greenroom.runs(token=token)]


def headers_seen(answer: Any) -> dict[str, str]:
    """The headers that the probe Actor saw, names in lower case."""
    assert answer.status_code == 200, answer.text
    return {name.lower(): value for name, value in answer.json()["headers"]}


# -- 401 and 404 -------------------------------------------------------------------------------------------------------


async def test_without_a_good_token_an_existing_host_says_401_and_starts_nothing(greenroom: Greenroom) -> None:
    """No token and a bad one are told apart, with the platform's types; no run is started for either."""
    actor = await greenroom.probe("asleep")
    missing = await greenroom.call("asleep", token=None)
    assert error_of(missing) == (401, "user-not-authenticated")
    assert missing.headers["www-authenticate"].startswith("Bearer")
    assert missing.headers["access-control-allow-origin"] == "*"
    bad = await greenroom.call("asleep", token="no-token-of-anybody-0123456789")
    assert error_of(bad) == (401, "user-or-token-not-found")
    assert "no-token-of-anybody" not in bad.text + greenroom.log
    assert await greenroom.runs_of(actor) == []


async def test_who_has_no_right_gets_the_404_of_a_host_that_does_not_exist(greenroom: Greenroom, other: str) -> None:
    """Private Actors of others, missing scopes, unknown Actors, users and hosts: byte for byte the same, no run."""
    words = ("--user", "local", "--scope", "runs:read", "--scope", "actors:read")
    reader = (await greenroom.command("token", "create", *words)).strip()
    await greenroom.probe("private-one")
    before = await all_runs(greenroom, TOKEN, other)
    port = greenroom.port
    unknown_host = {"Host": f"nobody--nothing.localhost:{port}"}
    answers = {
        "another user's private Actor": await greenroom.call("theirs", user="other"),
        "mine, with the other's token": await greenroom.call("private-one", token=other),
        "a token without the scope": await greenroom.call("private-one", token=reader),
        "an unknown Actor of mine": await greenroom.call("nothing"),
        "an unknown user": await greenroom.call("nothing", user="nobody"),
        "an unknown id": await greenroom.at(f"abcdefghijklmnopq.localhost:{port}", headers=_bearer(TOKEN)),
        "an unknown host without a token": await greenroom.client.get("/", headers=unknown_host),
        "a host elsewhere": await greenroom.at("example.com", headers=_bearer(TOKEN)),
        "a host elsewhere, without a token": await greenroom.at("example.com"),
        "the path form": await greenroom.at(
            f"localhost:{port}", "/standby/other--theirs/", headers={"Authorization": f"Bearer {TOKEN}"}
        ),
    }
    assert {name: error_of(answer) for name, answer in answers.items()} == dict.fromkeys(
        answers, (404, "record-not-found")
    )
    assert len({answer.content for answer in answers.values()}) == 1, {n: a.text for n, a in answers.items()}
    assert await all_runs(greenroom, TOKEN, other) == before


async def test_an_expired_token_is_no_token(greenroom: Greenroom) -> None:
    """Once its time is over a token is unknown, at hosts and in the API."""
    token = await greenroom.user("late")
    expired = (await greenroom.command("token", "create", "--user", "late", "--expires-days", "0.000001")).strip()
    assert (await greenroom.api("GET", "/users/me", token=token)).status_code == 200
    assert error_of(await greenroom.call("warm", token=expired)) == (401, "user-or-token-not-found")
    assert error_of(await greenroom.api("GET", "/users/me", token=expired))[0] == 401


async def test_a_token_with_the_scope_to_run_calls_hosts_and_nothing_else(greenroom: Greenroom) -> None:
    """``actors:run`` opens the user's standby hosts; it neither lists nor changes anything."""
    await greenroom.command("user", "add", "narrow")
    token = (await greenroom.command("token", "create", "--user", "narrow", "--scope", "actors:run")).strip()
    actor = await greenroom.probe("shared")
    await greenroom.data_of("PUT", f"/actors/{actor['id']}", json={"isPublic": True})
    assert (await greenroom.call("shared", token=token)).status_code == 200
    assert error_of(await greenroom.api("GET", "/actor-runs", token=token)) == (403, "insufficient-permissions")
    refused = await greenroom.api("PUT", f"/actors/{actor['id']}", token=token, json={"title": "mine"})
    assert error_of(refused) == (403, "insufficient-permissions")


# -- tokens never reach an Actor, nor a log ----------------------------------------------------------------------------

FOREIGN = "secret-of-the-actors-own"


def _bearer(token: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {token}"}


@pytest.mark.parametrize(
    ("target", "headers", "seen_target", "seen_authorization"),
    [
        pytest.param("/seen?x=1", _bearer(TOKEN), "/seen?x=1", None, id="authorization"),
        pytest.param("/seen?x=1", _bearer(TOKEN, "bEARER"), "/seen?x=1", None, id="scheme-in-any-case"),
        pytest.param(
            "/seen", {"X-Apify-Authorization": f"Bearer {TOKEN}"}, "/seen", None, id="x-apify-authorization-alone"
        ),
        pytest.param(
            "/seen",
            {"X-Apify-Authorization": f"Bearer {TOKEN}", "Authorization": f"Basic {FOREIGN}"},
            "/seen",
            f"Basic {FOREIGN}",
            id="x-apify-authorization-beside-the-actors-own",
        ),
        pytest.param(
            "/seen",
            {"X-Apify-Authorization": f"Bearer {TOKEN}", "Authorization": f"Bearer {FOREIGN}"},
            "/seen",
            f"Bearer {FOREIGN}",
            id="x-apify-authorization-beside-a-bearer-of-the-actors-own",
        ),
        pytest.param(f"/seen?token={TOKEN}&x=1", {}, "/seen?x=1", None, id="query-first"),
        pytest.param(f"/seen?x=a%2Fb&token={TOKEN}&y", {}, "/seen?x=a%2Fb&y", None, id="query-in-the-middle"),
        pytest.param(f"/seen?%74oken={TOKEN}", {}, "/seen", None, id="query-with-an-encoded-name"),
        pytest.param(f"/seen?token={TOKEN}", _bearer(TOKEN), "/seen", None, id="twice"),
        pytest.param(
            f"/seen?token={TOKEN}",
            {"Authorization": f"Basic {FOREIGN}"},
            "/seen",
            f"Basic {FOREIGN}",
            id="query-beside",
        ),
    ],
)
async def test_a_token_opens_the_host_and_stays_behind(
    greenroom: Greenroom, target: str, headers: Mapping[str, str], seen_target: str, seen_authorization: str | None
) -> None:
    """From each place a token is good; the Actor sees neither it nor its place, and its own scheme untouched."""
    answer = await greenroom.at(greenroom.host("warm"), target, headers=headers)
    seen = headers_seen(answer)
    assert TOKEN not in answer.text
    assert answer.json()["target"] == seen_target
    assert seen.get("authorization") == seen_authorization
    assert "x-apify-authorization" not in seen


async def test_no_token_is_ever_logged(greenroom: Greenroom) -> None:
    """Good or bad, in a header or in the query, at hosts, in the API or on a failing request: not in the log."""
    bad = "greenroom_api_bad-token-0123456789"
    for path in (f"/seen?token={TOKEN}", f"/drop?token={TOKEN}", f"/seen?token={bad}"):
        await greenroom.at(greenroom.host("warm"), path)
    for token in (TOKEN, bad):
        await greenroom.client.get(f"/v2/users/me?token={token}")
        await greenroom.client.get(f"/v2/no-such-page?token={token}")
    assert TOKEN not in greenroom.log
    assert bad not in greenroom.log


async def test_the_token_of_a_run_opens_the_hosts_of_its_user_and_stays_behind(greenroom: Greenroom) -> None:
    """A run may call another Actor's standby host with the token from its environment."""
    actor = await greenroom.probe("called")
    caller = (await greenroom.call("warm", "/env")).json()["env"]
    answer = await greenroom.call("called", "/seen", token=caller["APIFY_TOKEN"])
    assert "authorization" not in headers_seen(answer)
    assert caller["APIFY_TOKEN"] not in answer.text + greenroom.log
    (run,) = await greenroom.runs_of(actor)
    assert run["userId"] == caller["APIFY_USER_ID"]


# -- public Actors -----------------------------------------------------------------------------------------------------


async def test_a_public_actor_answers_anybody_and_sees_its_own_scheme(greenroom: Greenroom) -> None:
    """Without a token, with Greenroom's (taken away) and with one of the Actor's own (let through)."""
    bare = await greenroom.call("open", "/seen", token=None)
    assert "authorization" not in headers_seen(bare)
    own = await greenroom.at(greenroom.host("open"), "/seen?token=theirs", headers=_bearer(FOREIGN))
    assert headers_seen(own)["authorization"] == f"Bearer {FOREIGN}"
    ours = await greenroom.call("open", "/seen")
    assert "authorization" not in headers_seen(ours)
    assert TOKEN not in ours.text
    assert len({answer.json()["runId"] for answer in (bare, own, ours)}) == 1


async def test_a_dead_token_does_not_reach_a_public_actor_either(greenroom: Greenroom) -> None:
    """What Greenroom has made is recognised by its look, even when it no longer holds."""
    dead = (await greenroom.command("token", "create", "--user", "local", "--expires-days", "0.000001")).strip()
    answer = await greenroom.at(greenroom.host("open"), f"/seen?token={dead}", headers=_bearer(dead))
    assert "authorization" not in headers_seen(answer)
    assert dead not in answer.text


async def test_a_preflight_without_a_token_is_answered_and_starts_nothing(greenroom: Greenroom) -> None:
    """Browsers send none on a preflight: 204 with what was asked for, for private and public Actors alike."""
    asked = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization, x-mine",
    }
    for name, standby in (("preflight-private", {}), ("preflight-public", {"public": True})):
        actor = await greenroom.probe(name, standby)
        answer = await greenroom.call(name, "/any", token=None, method="OPTIONS", headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        assert answer.headers["access-control-allow-methods"] == "PATCH"
        assert answer.headers["access-control-allow-headers"] == "authorization, x-mine"
        assert "access-control-allow-credentials" not in answer.headers
        assert await greenroom.runs_of(actor) == []


async def test_a_preflight_to_a_warm_public_actor_is_let_through(greenroom: Greenroom) -> None:
    """Where no token is needed and nothing is woken, the Actor's own answer is the better one."""
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "PATCH"}
    run_id = (await greenroom.call("open", "/count", token=None)).json()["runId"]
    answer = await greenroom.call("open", "/seen", token=None, method="OPTIONS", headers=asked)
    assert (answer.status_code, answer.json()["runId"], answer.json()["method"]) == (200, run_id, "OPTIONS")


async def test_an_options_request_that_is_no_preflight_needs_a_token(greenroom: Greenroom) -> None:
    """Nor is it answered in the Actor's place."""
    assert error_of(await greenroom.call("warm", token=None, method="OPTIONS")) == (401, "user-not-authenticated")
    answer = await greenroom.call("warm", "/seen", method="OPTIONS")
    assert answer.json()["method"] == "OPTIONS"


# -- the forms of a host -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "local--{name}.localhost:{port}",
        "LOCAL--{name}.LocalHost:{port}",
        "local--{name}.localhost",
        "local--{name}.localhost.",
        "local--{name}.localhost.:{port}",
        "{id}.localhost:{port}",
        "{id_lower}.localhost",
        "{id_upper}.localhost:{port}",
    ],
)
async def test_every_form_of_a_host_means_the_same_run(greenroom: Greenroom, form: str) -> None:
    """By name or id, in any letter case, with or without port and trailing dot; the Actor sees the host as sent."""
    actor = await greenroom.data_of("GET", "/actors/~warm")
    host = form.format(
        name="warm", port=greenroom.port, id=actor["id"], id_lower=actor["id"].lower(), id_upper=actor["id"].upper()
    )
    answer = await greenroom.at(host, "/seen", headers=_bearer(TOKEN))
    assert headers_seen(answer)["host"] == host
    assert answer.json()["runId"] == (await greenroom.call("warm", "/seen")).json()["runId"]


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "api.localhost:{port}", "[::1]:{port}"])
async def test_the_path_form_serves_programs_without_wildcard_dns(greenroom: Greenroom, host: str) -> None:
    """Prefix stripped and told, same rules of access; the answer is sandboxed, cookies pass in neither direction."""
    host = host.format(port=greenroom.port)
    path = "/standby/local--warm/seen/a%2Fb?x=1"
    assert error_of(await greenroom.at(host, path)) == (401, "user-not-authenticated")
    answer = await greenroom.at(host, path, headers={**_bearer(TOKEN), "Cookie": "session=1"})
    seen = headers_seen(answer)
    assert answer.json()["target"] == "/seen/a%2Fb?x=1"
    assert seen["host"] == host
    assert seen["x-forwarded-prefix"] == "/standby/local--warm"
    assert "cookie" not in seen
    assert "set-cookie" not in answer.headers
    assert answer.headers["content-security-policy"] == "sandbox"


async def test_at_its_host_an_actor_has_its_cookies_and_no_sandbox(greenroom: Greenroom) -> None:
    """The counterpart of the path form: both directions, duplicates kept."""
    answer = await greenroom.call("warm", "/seen", headers={"Cookie": "session=1"})
    assert headers_seen(answer)["cookie"] == "session=1"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "content-security-policy" not in answer.headers


# -- live views --------------------------------------------------------------------------------------------------------


async def test_the_live_view_of_a_standby_run(greenroom: Greenroom) -> None:
    """Its label is the secret: no token is asked for, in the host form and in the path form; ours goes no further."""
    run_id = (await greenroom.call("warm", "/seen")).json()["runId"]
    host = _host_of((await greenroom.run(run_id))["containerUrl"])
    label = host.partition(".")[0]
    bare = await greenroom.at(host, "/seen?x=1")
    assert bare.json()["runId"] == run_id
    assert headers_seen(bare)["host"] == host
    ours = await greenroom.at(host, f"/seen?token={TOKEN}", headers=_bearer(TOKEN))
    assert "authorization" not in headers_seen(ours)
    assert TOKEN not in ours.text
    by_path = await greenroom.at(f"127.0.0.1:{greenroom.port}", f"/live/{label}/seen", headers={"Cookie": "c=1"})
    assert by_path.json()["target"] == "/seen"
    assert "cookie" not in headers_seen(by_path)
    assert by_path.headers["content-security-policy"] == "sandbox"
    unknown = await greenroom.at(f"abcdefghijklmnopqrstuvwxyz.runs.localhost:{greenroom.port}")
    assert error_of(unknown) == (404, "record-not-found")


async def test_the_live_view_of_a_batch_run_from_start_to_end(greenroom: Greenroom) -> None:
    """503 with Retry-After until its server listens, then its pages, and 410 once the run has ended."""
    go = greenroom.data.parent / "batch.go"
    actor = await greenroom.probe("batch", environmentVariables={"PROBE_START": f"file:{go}"})
    run = await greenroom.data_of("POST", f"/actors/{actor['id']}/runs")
    host = _host_of(run["containerUrl"])
    early = await greenroom.at(host)
    assert error_of(early) == (503, "standby-run-not-ready")
    assert int(early.headers["retry-after"]) >= 1
    await eventually(lambda: _has_status(greenroom, run["id"], "RUNNING"), what="the start")
    assert error_of(await greenroom.at(host)) == (503, "standby-run-not-ready")
    go.touch()

    async def page() -> str | None:
        answer = await greenroom.at(host)
        return answer.text if answer.status_code == 200 else None

    assert await eventually(page, what="the live view") == f"hello from {run['id']}"
    await greenroom.data_of("POST", f"/actor-runs/{run['id']}/abort")
    assert (await greenroom.ended(run["id"]))["status"] == "ABORTED"
    assert error_of(await greenroom.at(host)) == (410, "run-finished")


async def _has_status(greenroom: Greenroom, run_id: str, status: str) -> bool:
    return bool((await greenroom.run(run_id))["status"] == status)


def _host_of(url: str) -> str:
    return url.removeprefix("http://").rstrip("/")


# -- the API's hosts ---------------------------------------------------------------------------------------------------


async def test_the_api_answers_on_all_of_greenrooms_own_hosts(greenroom: Greenroom) -> None:
    """``localhost``, ``api.localhost`` and IP literals, with and without the port, under both spellings."""
    hosts = ["localhost", "api.localhost", "API.localhost.", "127.0.0.1", "[::1]"]
    answers = await asyncio.gather(
        *(
            greenroom.at(host + port, "/v2/users/me", headers=_bearer(TOKEN))
            for host in hosts
            for port in ("", f":{greenroom.port}")
        )
    )
    assert {answer.json()["data"]["username"] for answer in answers} == {"local"}
    for spelling in ("acts", "actors"):
        found = await greenroom.at("localhost", f"/v2/{spelling}/local~warm", headers=_bearer(TOKEN))
        assert found.json()["data"]["standbyUrl"] == f"http://{greenroom.host('warm')}"
