"""Each answer that an Actor on the official SDKs needs, field by field, against the models of the strictest client."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

# Model → its required and its optional fields, each with its kind; further fields are allowed everywhere.
# Source: apify-wire.md §5, as far as Greenroom answers with it.
MODELS: dict[str, dict[str, dict[str, str]]] = json.loads(Path(__file__).with_name("wire_models.json").read_text())

_MILLIS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_OF_TYPE: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "enum": lambda value: isinstance(value, str) and value != "",
    "url": lambda value: isinstance(value, str) and re.match(r"https?://[^/]+/", value + "/") is not None,
    "date": lambda value: (
        isinstance(value, str)
        and _MILLIS.fullmatch(value) is not None
        and datetime.fromisoformat(value).utcoffset() == timedelta(0)
    ),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
}


def problems(kind: str, value: Any, where: str) -> list[str]:
    """What the strictest client would not accept in *value*, which must be a *kind*."""
    if "|" in kind:
        each = [problems(part, value, where) for part in kind.split("|")]
        return [] if any(not found for found in each) else each[0]
    if kind in _OF_TYPE:
        return [] if _OF_TYPE[kind](value) else [f"{where} is no {kind}: {value!r}"]
    if kind.startswith("["):
        if not isinstance(value, list):
            return [f"{where} is no list: {value!r}"]
        return [found for n, item in enumerate(value) for found in problems(kind[1:-1], item, f"{where}[{n}]")]
    if kind.startswith("map<"):
        if not isinstance(value, dict):
            return [f"{where} is no object: {value!r}"]
        return [found for key, item in value.items() for found in problems(kind[4:-1], item, f"{where}.{key}")]
    if not isinstance(value, dict):
        return [f"{where} is no object: {value!r}"]
    if kind not in MODELS:
        return []
    required, optional = MODELS[kind]["required"], MODELS[kind]["optional"]
    found = [f"{where}.{name} is missing" for name in required if value.get(name) is None]
    for name, of in (required | optional).items():
        if value.get(name) is not None:
            found += problems(of, value[name], f"{where}.{name}")
    return found


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        pytest.param("date", "2026-01-02T03:04:05Z", 1, id="date without milliseconds"),
        pytest.param("int", 5.3, 1, id="fraction"),
        pytest.param("int", True, 1, id="bool as int"),
        pytest.param("url", "/v2/x", 1, id="relative"),
        pytest.param("ListOfKeys", {"items": [{"key": "a"}], "count": 1, "limit": 1}, 3, id="nested and missing"),
        pytest.param("RequestLockInfo", {"lockExpiresAt": "2026-01-02T03:04:05.678Z", "more": 1}, 0, id="right"),
    ],
)
def test_the_checker_finds_what_is_wrong(kind: str, value: Any, expected: int) -> None:
    """The checker itself: it finds as many problems as there are."""
    assert len(problems(kind, value, "it")) == expected


Ask = Callable[[str, str], Awaitable[Any]]

# The model of ``data`` · method · path ({run}, {actor}, … are filled in) · body
ANSWERS: list[tuple[str, str, str, Any]] = [
    ("Run", "GET", "/actor-runs/{run}", None),
    ("Run", "PUT", "/actor-runs/{run}", {"statusMessage": "hello", "isStatusMessageTerminal": False}),
    ("Run", "POST", "/actors/{actor}/runs", {"some": "input"}),
    ("Run", "POST", "/actor-runs/{run}/abort?gracefully=1", None),
    ("Run", "GET", "/actors/{actor}/runs/last", None),
    ("list of RunListItem", "GET", "/actor-runs", None),
    ("ActorResource", "GET", "/actors/{actor}", None),
    ("list of ActorListItem", "GET", "/actors", None),
    ("Build", "GET", "/actor-builds/{build}", None),
    ("list of BuildListItem", "GET", "/actor-builds", None),
    ("UserPrivateInfo", "GET", "/users/me", None),
    ("UserPublicInfo", "GET", "/users/bob", None),
    ("KeyValueStoreResource", "POST", "/key-value-stores?name=golden", None),
    ("KeyValueStoreResource", "GET", "/key-value-stores/{key-value-stores}", None),
    ("KeyValueStoreResource", "GET", "/actor-runs/{run}/key-value-store", None),
    ("ListOfKeys", "GET", "/key-value-stores/{key-value-stores}/keys", None),
    ("ListOfKeys", "GET", "/key-value-stores/{key-value-stores}/keys?limit=1", None),
    ("DatasetResource", "POST", "/datasets", None),
    ("DatasetResource", "GET", "/datasets/{datasets}", None),
    ("list of DatasetListItem", "GET", "/datasets?unnamed=1", None),
    ("RequestQueueResource", "POST", "/request-queues?name=golden", None),
    ("RequestQueueResource", "GET", "/request-queues/{request-queues}", None),
    ("list of RequestQueueListItem", "GET", "/request-queues?unnamed=true", None),
    ("RequestRegistration", "POST", "/request-queues/{request-queues}/requests", {"url": "u", "uniqueKey": "new"}),
    (
        "BatchAddResult",
        "POST",
        "/request-queues/{request-queues}/requests/batch",
        [{"url": "u", "uniqueKey": "a"}, {"url": "u", "uniqueKey": "b", "method": "POST", "payload": "x"}],
    ),
    ("BatchDeleteResult", "DELETE", "/request-queues/{request-queues}/requests/batch", [{"uniqueKey": "first"}]),
    ("RequestResource", "GET", "/request-queues/{request-queues}/requests/{request}", None),
    (
        "RequestRegistration",
        "PUT",
        "/request-queues/{request-queues}/requests/{request}",
        {"id": "{request}", "url": "http://a.test/", "uniqueKey": "first"},
    ),
    ("ListOfRequests", "GET", "/request-queues/{request-queues}/requests?limit=1", None),
    ("RequestQueueHead", "GET", "/request-queues/{request-queues}/head", None),
    ("LockedRequestQueueHead", "POST", "/request-queues/{request-queues}/head/lock?lockSecs=60", None),
    ("RequestLockInfo", "PUT", "/request-queues/{request-queues}/requests/{request}/lock?lockSecs=60", None),
    ("UnlockRequestsResult", "POST", "/request-queues/{request-queues}/requests/unlock", None),
]


@pytest.mark.parametrize(
    ("model", "method", "path", "body"),
    [pytest.param(*answer, id=f"{answer[1]} {answer[2]}") for answer in ANSWERS],
)
async def test_each_answer_has_its_fields(api: Any, model: str, method: str, path: str, body: Any) -> None:
    """An answer has every field that its model requires, each of its kind, for the user and for the run itself."""
    actor = await api.bob.built_actor(actorStandby={"isEnabled": True})
    run = await api.bob.post(f"/actors/{actor['id']}/runs", json={"n": 1})
    build = (await api.bob.get("/actor-builds"))["items"][0]
    names = {
        "run": run["id"],
        "actor": actor["id"],
        "build": build["id"],
        "key-value-stores": run["defaultKeyValueStoreId"],
        "datasets": run["defaultDatasetId"],
        "request-queues": run["defaultRequestQueueId"],
    }
    itself = await api.run_itself(run)
    await itself.http.put(f"/v2/key-value-stores/{names['key-value-stores']}/records/OUT", json={"a": 1})
    await itself.http.post(f"/v2/datasets/{names['datasets']}/items", json=[{"a": 1}])
    queue = f"/request-queues/{names['request-queues']}"
    for key in ("first", "second"):
        added = await itself.post(f"{queue}/requests", json={"url": "http://a.test/", "uniqueKey": key})
        names.setdefault("request", added["requestId"])
    if path.endswith("/requests/{request}/lock?lockSecs=60"):
        await api.bob.post(f"{queue}/head/lock?lockSecs=60")
    answer = await api.bob.http.request(
        method, f"/v2{_filled(path, names)}", **({"json": _with(body, names)} if body is not None else {})
    )
    assert answer.status_code in (200, 201), answer.text
    data = answer.json()["data"]
    if model.startswith("list of "):
        assert data["items"], "there must be something to look at"
        assert problems("PaginationResponse", data, "data") == []
        model, data = f"[{model.removeprefix('list of ')}]", data["items"]
    assert problems(model, data, "data") == []


async def test_an_empty_list_of_keys_ends_with_null(api: Any) -> None:
    """The JavaScript client goes on until ``nextExclusiveStartKey`` is null: absent, it would never end."""
    store = await api.bob.post("/key-value-stores")
    keys = await api.bob.get(f"/key-value-stores/{store['id']}/keys")
    assert keys["nextExclusiveStartKey"] is None
    assert keys["isTruncated"] is False


def _filled(path: str, names: dict[str, str]) -> str:
    return re.sub(r"{([\w-]+)}", lambda found: names[found[1]], path)


def _with(body: Any, names: dict[str, str]) -> Any:
    if isinstance(body, dict) and body.get("id") == "{request}":
        return body | {"id": names["request"]}
    return body
