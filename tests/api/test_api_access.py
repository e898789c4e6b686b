"""The owner check, proven for every route that there is, so that a new one can't be forgotten."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from gateway.core.lifecycle import RunStatus
from gateway.core.model import DecisionRecord
from gateway.core.standby import PoolKey

# Routes that name nothing of anybody's, or show what is public; each has its own test.
OPEN_TO_ALL = {"/v2/users/me", "/v2/users/{user}"}
CREATES_ONES_OWN = {("POST", "/v2/actors"), ("POST", "/v2/greenroom/push")} | {
    ("POST", f"/v2/{collection}") for collection in ("key-value-stores", "datasets", "request-queues")
}
NOT_BY_A_RUN = {("POST", "/v2/actors"), ("POST", "/v2/greenroom/push")}
# One storage, by its id or as the default one of a run.
OF_A_STORAGE = re.compile(r"{storage}|{run}/(key-value-store|dataset|request-queue)")


async def _bobs(api: Any) -> dict[str, str]:
    """One of everything that a path can name, all of it bob's."""
    actor = await api.bob.built_actor()
    await api.bob.post(f"/actors/{actor['id']}/versions/0.1/env-vars", json={"name": "KEY", "value": "v"})
    build = (await api.bob.get("/actor-builds"))["items"][0]
    run = await api.bob.post(f"/actors/{actor['id']}/runs")
    stored = await _stored(api, run)
    await api.finish(run)
    await api.bob.post(f"/greenroom/actors/{actor['id']}/names", json={"name": "shop"})
    pool = PoolKey(target_id=actor["id"], user_id=api.bob.user.id)
    await api.services.state.records.add_decisions(
        [
            DecisionRecord(
                id="d",
                pool_id=pool.id,
                actor_id=actor["id"],
                at=api.clock.now(),
                wanted_runs=1,
                present_runs=0,
                reasons=(),
            )
        ]
    )
    return {
        "actor": actor["id"],
        "version": "0.1",
        "name": "KEY",
        "host": "shop",
        "build": build["id"],
        "run": run["id"],
        "job": run["id"],
        "pool": pool.id,
        "user": "bob",
        **stored,
    }


async def _stored(api: Any, run: Any) -> dict[str, str]:
    """Something in each of the run's default storages; their names in paths."""
    store, queue = run["defaultKeyValueStoreId"], run["defaultRequestQueueId"]
    await api.bob.put(f"/key-value-stores/{store}/records/OUT", 201, json={"a": 1})
    await api.bob.http.post(f"/v2/datasets/{run['defaultDatasetId']}/items", json=[{"a": 1}])
    request = await api.bob.post(f"/request-queues/{queue}/requests", json={"url": "http://a.test/", "uniqueKey": "a"})
    return {
        "key-value-stores": store,
        "datasets": run["defaultDatasetId"],
        "request-queues": queue,
        "key": "OUT",
        "request": request["requestId"],
    }


def _calls(app: Any) -> list[tuple[str, str]]:
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) == len(app.routes)
    return [(method, route.path) for route in routes for method in sorted(route.methods or ())]


def _filled(path: str, names: dict[str, str]) -> str:
    """*path* with its names filled in; ``{storage}`` is called by what stands before it."""
    path = re.sub(r"([\w-]+)/{storage}", lambda found: f"{found[1]}/{names[found[1]]}", path)
    return re.sub(r"{(\w+)(?::\w+)?}", lambda found: names[found[1]], path)


async def test_every_route_wants_a_token(api: Any) -> None:
    """No route answers without a token, whatever exists behind it."""
    names = await _bobs(api)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://localhost") as http:
        for method, path in _calls(api.app):
            answer = await http.request(method, _filled(path, names))
            assert answer.status_code == 401, (method, path)
            if method != "HEAD":
                assert answer.json()["error"]["type"] == "token-not-provided"


async def test_every_route_hides_what_is_anothers(api: Any) -> None:
    """What belongs to bob is for eve as if it did not exist: 404, or not in the list; and she changes nothing."""
    names = await _bobs(api)
    before = await _everything(api, names)
    for method, path in _calls(api.app):
        if path in OPEN_TO_ALL or (method, path) in CREATES_ONES_OWN:
            continue
        answer = await api.eve.http.request(method, _filled(path, names), json={"name": "X", "versionNumber": "0.1"})
        if "{" in path:
            assert answer.status_code == 404, (method, path, answer.text)
            if method != "HEAD":
                assert answer.json()["error"]["type"] == "record-not-found", (method, path)
        elif method != "HEAD":
            assert answer.json()["data"]["items"] == [], (method, path)
    assert await _everything(api, names) == before


async def test_anothers_looks_like_nothing(api: Any) -> None:
    """The answer about bob's things is, to the letter, the one about things that never existed."""
    names = await _bobs(api)
    nothing = dict.fromkeys(names, "AAAAAAAAAAAAAAAAA")
    for method, path in _calls(api.app):
        if "{" in path and path not in OPEN_TO_ALL and method != "HEAD":
            real = await api.eve.http.request(method, _filled(path, names), json={})
            imagined = await api.eve.http.request(method, _filled(path, nothing), json={})
            assert (real.status_code, real.content) == (imagined.status_code, imagined.content), (method, path)


async def _everything(api: Any, names: dict[str, str]) -> list[Any]:
    return [
        await api.bob.get(_filled(path, names))
        for path in (
            "/actors/{actor}",
            "/actors/{actor}/versions/{version}",
            "/actors/{actor}/versions/{version}/env-vars",
            "/greenroom/actors/{actor}/names",
            "/actor-builds/{build}",
            "/actor-runs/{run}",
            "/datasets/{storage}",
            "/key-value-stores/{storage}",
            "/key-value-stores/{storage}/keys",
            "/request-queues/{storage}",
            "/request-queues/{storage}/requests",
        )
    ]


async def test_what_a_run_may_do(api: Any) -> None:
    """The token of a run: its own run, log and Actor, its user, and starting runs; of all other routes none."""
    names = await _bobs(api)
    mine = await api.bob.post(f"/actors/{names['actor']}/runs")
    other = await api.bob.built_actor("other")
    run = await api.run_itself(mine)
    object.__setattr__(
        api.services, "settings", api.services.settings.model_copy(update={"run_sync_timeout_secs": 0.1})
    )
    allowed = {
        ("GET", "/v2/users/me"),
        ("GET", "/v2/actors/{actor}"),
        ("GET", "/v2/actors/{actor}/runs/{run}"),
        ("POST", "/v2/actors/{actor}/runs/{run}/abort"),
        ("POST", "/v2/actors/{actor}/runs"),
        ("POST", "/v2/actors/{actor}/validate-input"),
        *(
            (method, f"/v2/actors/{{actor}}/{path}")
            for method in ("GET", "POST")
            for path in ("run-sync", "run-sync-get-dataset-items")
        ),
        ("GET", "/v2/actor-runs/{run}"),
        ("PUT", "/v2/actor-runs/{run}"),
        ("POST", "/v2/actor-runs/{run}/abort"),
        ("POST", "/v2/actor-runs/{run}/reboot"),
        ("POST", "/v2/actors/{actor}/runs/{run}/reboot"),
        ("GET", "/v2/logs/{job}"),
        ("GET", "/v2/actor-runs/{run}/log"),
        ("GET", "/v2/actors/{actor}/runs/{run}/log"),
    }
    for method, path in _calls(api.app):
        if method == "HEAD" or OF_A_STORAGE.search(path) or (method, path) in CREATES_ONES_OWN - NOT_BY_A_RUN:
            continue
        own = _filled(path, names | {"run": mine["id"], "job": mine["id"]})
        answer = await run.http.request(method, own, json={})
        if (method, path) in allowed:
            # 409: it may be restarted, but not while it is being aborted. 408: here nobody performs the run.
            assert answer.status_code in (200, 201, 408, 409), (method, path, answer.text)
        else:
            assert answer.status_code == 403, (method, path, answer.text)
        if (method, path) in allowed and ("{run}" in path or "{job}" in path):
            others = await run.http.request(method, _filled(path, names), json={})
            assert others.status_code == 403, (method, path, others.text)
    seen = await run.get(f"/actors/{other['id']}")  # which it may run
    assert "envVars" not in seen["versions"][0], "an Actor that it may run is no open book"
    await run.get(f"/actors/{(await api.eve.built_actor('secret'))['id']}", 404)


@pytest.mark.slow
async def test_which_storages_a_run_may_use(api: Any) -> None:
    """By every route: a run's own storages, those that its Actor made and those of runs that it started; no others."""
    names = await _bobs(api)
    mine = await api.bob.post(f"/actors/{names['actor']}/runs")
    run = await api.run_itself(mine)
    other = await api.bob.post(f"/actors/{(await api.bob.built_actor('other'))['id']}/runs")
    child = await run.post(f"/actors/{other['actId']}/runs")
    for method, path in _calls(api.app):
        if not OF_A_STORAGE.search(path):
            continue
        for owner in (mine, child, other):
            own = names | {"run": owner["id"], "actor": owner["actId"]} | await _stored(api, owner)
            if method == "DELETE" and path.endswith(("{storage}", "store", "dataset", "queue")):
                continue  # what is deleted can't be looked at again
            answer = await run.http.request(method, _filled(path, own), json={})
            # A lock that it does not hold is refused by another name.
            refused = answer.status_code == 403 and b"request-not-locked" not in answer.content
            assert answer.status_code != 401
            assert refused == (owner is other), (method, path, answer.status_code, answer.text)
    named = await run.post("/datasets?name=made-by-a-run")
    sibling = await api.run_itself(await api.bob.post(f"/actors/{names['actor']}/runs"))
    assert (await sibling.get("/datasets/~made-by-a-run"))["id"] == named["id"]
    stranger = await api.run_itself(other)
    await stranger.get(f"/datasets/{named['id']}", 403)
    refused = await stranger.post("/datasets?name=made-by-a-run", 403)
    assert refused["type"] == "insufficient-permissions"


async def test_a_run_reaches_what_it_started(api: Any) -> None:
    """The token of a run may wait for, read and abort the runs that it started, and those of nobody else."""
    names = await _bobs(api)
    parent = await api.run_itself(await api.bob.post(f"/actors/{names['actor']}/runs"))
    stranger = await api.run_itself(await api.bob.post(f"/actors/{names['actor']}/runs"))
    child = await parent.post(f"/actors/{names['actor']}/runs")
    for path in (f"/actor-runs/{child['id']}", f"/actors/{names['actor']}/runs/{child['id']}"):
        assert (await parent.get(path))["meta"]["origin"] == "ACTOR"
        await stranger.get(path, 403)
    assert (await parent.http.get(f"/v2/actor-runs/{child['id']}/log")).status_code == 200
    assert (await stranger.http.get(f"/v2/actor-runs/{child['id']}/log")).status_code == 403
    await stranger.post(f"/actor-runs/{child['id']}/abort", 403)
    assert (await parent.post(f"/actor-runs/{child['id']}/abort", 200))["status"] == "ABORTING"


async def test_a_runs_token_dies_with_it(api: Any) -> None:
    """After its end the token of a run opens nothing, but for half a minute its own record."""
    names = await _bobs(api)
    mine = await api.bob.post(f"/actors/{names['actor']}/runs")
    run = await api.run_itself(mine)
    await run.get(f"/actor-runs/{mine['id']}")
    await api.finish(mine, RunStatus.FAILED)
    await run.get("/users/me", 401)
    await run.get(f"/actor-runs/{names['run']}", 401)
    await run.get(f"/actor-runs/{mine['id']}")
    api.clock.pass_by(seconds=31)
    await run.get(f"/actor-runs/{mine['id']}", 401)
    await run.put(f"/actor-runs/{mine['id']}", 401, json={"statusMessage": "too late"})


@pytest.mark.parametrize(
    ("status", "said", "shown"),
    [
        pytest.param(RunStatus.FAILED, {"isStatusMessageTerminal": True}, "my last word", id="last word of a failure"),
        pytest.param(RunStatus.FAILED, {}, "by the system", id="not a last word"),
        pytest.param(RunStatus.SUCCEEDED, {}, "my last word", id="any word of a success"),
    ],
)
async def test_the_last_word_may_come_late(api: Any, status: RunStatus, said: dict[str, Any], shown: str) -> None:
    """A message that was sent just before the process went counts after its end, and never changes the status."""
    names = await _bobs(api)
    mine = await api.bob.post(f"/actors/{names['actor']}/runs")
    run = await api.run_itself(mine)
    await api.supervise(mine, status=status, finished_at=api.clock.now(), exit_code=1, status_message="by the system")
    api.clock.pass_by(seconds=2)
    answered = await run.put(
        f"/actor-runs/{mine['id']}", json={"statusMessage": "my last word", "level": "INFO"} | said
    )
    assert (answered["statusMessage"], answered["status"]) == (shown, status)
    assert (await api.bob.get(f"/actor-runs/{mine['id']}"))["statusMessage"] == shown


@pytest.fixture
async def public(api: Any) -> Any:
    """A public Actor of bob's, with a variable and a secret one."""
    actor = await api.bob.built_actor("shared", isPublic=True)
    for variable in ({"name": "PLAIN", "value": "plain"}, {"name": "SECRET", "value": "hidden", "isSecret": True}):
        await api.bob.post(f"/actors/{actor['id']}/versions/0.1/env-vars", json=variable)
    return actor


async def test_a_public_actor_can_be_seen_and_run(api: Any, public: Any) -> None:
    """Others see a public Actor without its source and variables; a run of it belongs to whoever starts it."""
    seen = await api.eve.get("/actors/bob~shared")
    assert seen["id"] == public["id"]
    assert seen["versions"] == [
        {"versionNumber": "0.1", "sourceType": "SOURCE_FILES", "buildTag": "latest", "applyEnvVarsToBuild": False}
    ]
    for path in ("/versions", "/versions/0.1", "/builds", "/builds/default"):
        shown = await api.eve.http.get(f"/v2/actors/bob~shared{path}")
        assert shown.status_code == 200
        assert "sourceFiles" not in shown.text
        assert "envVars" not in shown.text
    run = await api.eve.post("/actors/bob~shared/runs")
    assert run["userId"] == api.eve.user.id
    assert (await api.eve.get("/actors/bob~shared/runs"))["total"] == 1
    assert (await api.bob.get("/actors/shared/runs"))["total"] == 0
    await api.bob.get(f"/actor-runs/{run['id']}", 404)


async def test_a_public_actor_can_be_changed_by_its_owner_alone(api: Any, public: Any) -> None:
    """Others learn that they may not; the log of a build, which may print anything, stays hidden."""
    build = (await api.bob.get("/actor-builds"))["items"][0]["id"]
    for method, path in (
        ("PUT", "/actors/bob~shared"),
        ("DELETE", "/actors/bob~shared"),
        ("POST", "/actors/bob~shared/versions"),
        ("PUT", "/actors/bob~shared/versions/0.1"),
        ("DELETE", "/actors/bob~shared/versions/0.1"),
        ("GET", "/actors/bob~shared/versions/0.1/env-vars"),
        ("GET", "/actors/bob~shared/versions/0.1/env-vars/PLAIN"),
        ("POST", "/actors/bob~shared/builds?version=0.1"),
        ("POST", f"/actor-builds/{build}/abort"),
        ("DELETE", f"/actor-builds/{build}"),
    ):
        assert (await api.eve.ask(method, path, 403, json={}))["type"] == "insufficient-permissions"
    await api.eve.get(f"/actor-builds/{build}/log", 404)
    await api.eve.get(f"/logs/{build}", 404)


async def test_users(api: Any) -> None:
    """One's own record is private, of others' only the name is shown."""
    me = await api.bob.get("/users/me")
    assert (me["id"], me["username"]) == (api.bob.user.id, "bob")
    assert len(me["proxy"]["password"]) >= 32
    for reference in ("bob", "BOB", api.bob.user.id):
        assert await api.eve.get(f"/users/{reference}") == {"username": "bob", "profile": {"name": "bob"}}
    await api.eve.get("/users/nobody", 404)
