"""Items of datasets: pushed whole or not at all, read back in every format, page by page."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import zipfile
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import brotli
import httpx
import pytest
from apify_client import _models as models

from gateway import app
from gateway.api import item_pages
from gateway.auth import url_signing_secret
from gateway.core.signed_urls import storage_signature
from gateway.observability import Metrics
from gateway.state.storages import SqlStorages

ITEMS: list[Any] = [{"n": n, "name": f"item {n}"} for n in range(5)]
SCHEMA = {
    "actorSpecification": 1,
    "fields": {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "tags": {"type": "array", "items": {"$ref": "#/definitions/tag"}}},
        "required": ["n"],
        "definitions": {"tag": {"type": "string"}},
    },
    "views": {
        "short": {
            "title": "Short",
            "transformation": {"fields": ["name", "n"], "limit": 3, "desc": True},
            "display": {"component": "table"},
        },
        "bare": {"title": "Bare"},
    },
}


@pytest.fixture
async def dataset(bob: Any) -> Any:
    """A dataset of bob's."""
    return await bob.post("/datasets?name=things")


@pytest.fixture
def path(dataset: Any) -> str:
    """The path of its items."""
    return f"/v2/datasets/{dataset['id']}/items"


def client_of(app: Any, bob: Any) -> httpx.AsyncClient:
    """A client with bob's token for an app around the API's."""
    headers = {"Authorization": f"Bearer {bob.token}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.localhost", headers=headers)


async def push(bob: Any, path: str, items: Any, status: int = 201) -> Any:
    answer = await bob.http.post(path, json=items)
    assert answer.status_code == status, answer.text
    return answer.json()


async def read(bob: Any, path: str, **query: Any) -> Any:
    answer = await bob.http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
async def run_of(api: Any, bob: Any) -> Any:
    """Makes a run whose build declares the given ``storages``."""

    async def made(storages: Any) -> Any:
        await bob.built_actor()
        run = await bob.post("/actors/hello/runs")
        records = api.services.state.records
        build = await records.build(run["buildId"])
        await records.replace_build(replace(build, definition={**build.definition, "storages": storages}))
        return run

    return made


async def test_push_and_read(bob: Any, dataset: Any, path: str) -> None:
    """One object or an array of them is appended in order; all come back as a bare array, and are counted."""
    assert await push(bob, path, ITEMS[0]) == {"data": {}}
    assert await push(bob, path, ITEMS[1:]) == {"data": {}}
    assert await push(bob, path, []) == {"data": {}}
    answer = await bob.http.get(path)
    assert (answer.json(), answer.headers["content-type"]) == (ITEMS, "application/json; charset=utf-8")
    view = await bob.get(f"/datasets/{dataset['id']}")
    shown = models.DatasetResponse.model_validate({"data": view}).data
    assert (shown.item_count, shown.clean_item_count) == (5, 5)


async def test_clean_items_are_counted(bob: Any, dataset: Any, path: str) -> None:
    """Items of which nothing is left without hidden fields are no clean ones."""
    await push(bob, path, [{"a": 1}, {}, {"#debug": 1}, {"#debug": 1, "b": None}])
    view = await bob.get(f"/datasets/{dataset['id']}")
    assert (view["itemCount"], view["cleanItemCount"]) == (4, 2)
    assert await read(bob, path, clean="true") == [{"a": 1}, {"b": None}]


async def test_texts_are_kept(bob: Any, path: str) -> None:
    """The order of keys, any text, whole numbers of any size: the same JSON comes back."""
    item = '{"z":1,"a":[1.0,123456789012345678901234567890,-0.5,true,null],"ž\\u0000😀":"\\n</script>"}'
    assert (await bob.http.post(path, content=item.encode())).status_code == 201
    assert (await bob.http.get(path)).text == f"[{item}]"


@pytest.mark.parametrize(
    ("encoding", "encode"), [("br", brotli.compress), ("gzip", gzip.compress)], ids=["brotli", "gzip"]
)
async def test_encoded_bodies(bob: Any, path: str, encoding: str, encode: Any) -> None:
    """Both SDKs compress what they push."""
    body = json.dumps(ITEMS * 1000).encode()
    answer = await bob.http.post(path, content=encode(body), headers={"Content-Encoding": encoding})
    assert answer.status_code == 201
    assert await read(bob, path) == ITEMS * 1000


@pytest.mark.parametrize(
    ("body", "position"),
    [
        pytest.param(b"", None, id="empty"),
        pytest.param(b"  ", None, id="blank"),
        pytest.param(b"{", None, id="cut"),
        pytest.param(b"1", None, id="a number"),
        pytest.param(b'"text"', None, id="a text"),
        pytest.param(b"null", None, id="null"),
        pytest.param(b'[{"a":1},null]', 1, id="null among items"),
        pytest.param(b'[[{"a":1}]]', 0, id="an array among items"),
        pytest.param(b'{"a":NaN}', None, id="not a number"),
        pytest.param(b'{"a":1e999}', None, id="no finite number"),
        pytest.param(b'{"a":"\\ud800"}', None, id="half a character"),
        pytest.param(b'{"a":"\xff"}', None, id="not UTF-8"),
        pytest.param(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, id="nested too deeply"),
    ],
)
async def test_refused_bodies(bob: Any, path: str, body: bytes, position: int | None) -> None:
    """What is no item is told, with its place, and nothing of the push is stored."""
    answer = await bob.http.post(path, content=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid-request")
    assert answer.json()["error"].get("data", {}).get("itemPosition") == position
    if position is not None:
        assert f"position {position}" in answer.json()["error"]["message"]
    assert await read(bob, path) == []


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_too_large(api: Any, bob: Any, path: str, encoding: str) -> None:
    """The limit is that of the decoded body."""
    settings = api.services.settings.model_copy(update={"max_api_body_bytes": 2048})
    object.__setattr__(api.services, "settings", settings)
    body = json.dumps([{"a": "x" * 2048}]).encode()
    body = gzip.compress(body) if encoding == "gzip" else body
    answer = await bob.http.post(path, content=body, headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request-too-large")
    assert await read(bob, path) == []


async def test_pushes_at_once(bob: Any, path: str) -> None:
    """Pushes at the same moment, equal ones too, are all kept, each in one piece."""
    pushes = [[{"push": number % 4, "item": item} for item in range(5)] for number in range(8)]
    await asyncio.gather(*(push(bob, path, items) for items in pushes))
    found = await read(bob, path)
    pieces = [found[start : start + 5] for start in range(0, 40, 5)]
    assert sorted(pieces, key=str) == sorted(pushes, key=str)


class _Noting:
    """The storages, and in which order pushes are stored and told to be answered."""

    def __init__(self, storages: Any, events: list[Any]) -> None:
        self._storages = storages
        self._events = events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storages, name)

    async def push_items(self, *place: Any, **push: Any) -> bool:
        self._events.append(("stored", push["push_id"], push["digest"]))
        return bool(await self._storages.push_items(*place, **push))

    def push_was_answered(self, push_id: str) -> None:
        self._events.append(("answered", push_id))
        self._storages.push_was_answered(push_id)


async def test_pushes_are_told_apart(api: Any, bob: Any, eve: Any, path: str) -> None:
    """
    A push counts as answered only after its answer has gone out; its digest is the same for the same body from the
    same token to the same dataset, and else another.
    """
    events: list[Any] = []
    state = replace(api.services.state, storages=_Noting(api.services.state.storages, events))
    object.__setattr__(api.services, "state", state)
    sent: list[Any] = []

    async def noting_app(scope: Any, receive: Any, send: Any) -> None:
        async def noting_send(message: Any) -> None:
            events.append(message["type"])
            await send(message)

        await api.app(scope, receive, noting_send)

    async with client_of(noting_app, bob) as http:
        for body in (b"{}", b"{}", b"{} "):
            events.clear()
            assert (await http.post(path, content=body)).status_code == 201
            stored, start, body_sent, answered = events
            assert (stored[0], start, body_sent) == ("stored", "http.response.start", "http.response.body")
            assert answered == ("answered", stored[1])
            sent.append(stored)
    assert sent[0][2] == sent[1][2] != sent[2][2]
    assert len({push_id for _, push_id, _ in sent}) == 3
    other = await bob.post("/datasets")
    another_token = await api.caller(bob.user)
    for caller, to in ((bob, f"/v2/datasets/{other['id']}/items"), (another_token, path)):
        events.clear()
        await caller.http.post(to, content=b"{}")
        assert events[0][2] != sent[0][2]


async def _no_time(_: float) -> None:
    """In which nothing happens: as if the other process were dead."""


async def test_repeated_after_a_restart(api: Any, bob: Any, path: str) -> None:
    """A push whose answer nobody saw, repeated to the next process, is answered as if it were new and stored once."""

    class _NeverAnswered(_Noting):
        def push_was_answered(self, push_id: str) -> None:
            """The process died before."""

    state = api.services.state
    object.__setattr__(api.services, "state", replace(state, storages=_NeverAnswered(state.storages, [])))
    await push(bob, path, ITEMS)
    next_process = SqlStorages(state.storages._database, sleep=_no_time)
    object.__setattr__(api.services, "state", replace(state, storages=next_process))
    assert await push(bob, path, ITEMS) == {"data": {}}
    assert await read(bob, path) == ITEMS
    await push(bob, path, ITEMS)
    assert await read(bob, path) == ITEMS * 2


async def test_pushes_of_a_gateway_that_ends(monkeypatch: Any, api: Any, bob: Any, path: str) -> None:
    """What it has answered last is forgotten with its end: an equal push to the next one neither waits nor is lost."""
    monkeypatch.setattr(app, "_FORGET_PUSHES_SECS", 3600)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(app.Gateway(api.services, Metrics(), gateway_id="g").run())
        await push(bob, path, ITEMS)
        running.cancel()

    async def no_wait(_: float) -> None:
        raise AssertionError("there is nothing to wait for")

    state = api.services.state
    next_process = SqlStorages(state.storages._database, sleep=no_wait)
    object.__setattr__(api.services, "state", replace(state, storages=next_process))
    await push(bob, path, ITEMS)
    assert await read(bob, path) == ITEMS * 2


@pytest.mark.parametrize(
    ("query", "items", "limit"),
    [
        pytest.param({}, [0, 1, 2, 3, 4], "999999999999", id="all"),
        pytest.param({"limit": 2}, [0, 1], "2", id="the first"),
        pytest.param({"limit": 0}, [0, 1, 2, 3, 4], "999999999999", id="0 is no limit"),
        pytest.param({"limit": 999999999999}, [0, 1, 2, 3, 4], "999999999999", id="the client's no limit"),
        pytest.param({"offset": 3}, [3, 4], "999999999999", id="the rest"),
        pytest.param({"offset": 3, "limit": 9}, [3, 4], "9", id="fewer than asked for"),
        pytest.param({"offset": 5}, [], "999999999999", id="behind the end"),
        pytest.param({"offset": 10**15, "limit": 1}, [], "1", id="far behind the end"),
        pytest.param({"desc": "1"}, [4, 3, 2, 1, 0], "999999999999", id="from the end"),
        pytest.param({"desc": "true", "offset": 1, "limit": 2}, [3, 2], "2", id="a part from the end"),
    ],
)
@pytest.mark.parametrize("page_items", [1000, 2, 1], ids=["one page", "pages of two", "pages of one"])
async def test_pages(
    monkeypatch: Any, bob: Any, path: str, query: Any, items: list[int], limit: str, page_items: int
) -> None:
    """Offset, limit and direction select stored items; the five headers say what was scanned."""
    monkeypatch.setattr(item_pages, "_PAGE_ITEMS", page_items)
    await push(bob, path, ITEMS)
    answer = await bob.http.get(path, params=query)
    assert [item["n"] for item in answer.json()] == items
    pagination = {
        name.removeprefix("x-apify-pagination-"): value
        for name, value in answer.headers.items()
        if name.startswith("x-apify-pagination-")
    }
    assert pagination == {
        "total": "5",
        "offset": str(query.get("offset", 0)),
        "count": str(len(items)),
        "limit": limit,
        "desc": "true" if "desc" in query else "false",
    }
    head = await bob.http.head(path, params=query)
    assert (head.status_code, head.content, head.headers["x-apify-pagination-count"]) == (200, b"", str(len(items)))
    lines = await bob.http.get(path, params={**query, "format": "jsonl"})
    assert [json.loads(line)["n"] for line in lines.text.splitlines()] == items


@pytest.mark.parametrize("desc", ["0", "1"])
async def test_pushed_while_it_is_read(monkeypatch: Any, api: Any, bob: Any, path: str, desc: str) -> None:
    """Items that are pushed while others are sent neither shift nor double those."""
    monkeypatch.setattr(item_pages, "_PAGE_ITEMS", 2)
    await push(bob, path, ITEMS)
    state = api.services.state

    class _Growing(_Noting):
        async def items(self, *place: Any, **part: Any) -> Any:
            found = await self._storages.items(*place, **part)
            await state.storages.push_items(
                place[0], ['{"n":99}'], clean_count=1, now=api.clock.now(), push_id=api.services.new_id(), digest="x"
            )
            return found

    object.__setattr__(api.services, "state", replace(state, storages=_Growing(state.storages, [])))
    numbers = [item["n"] for item in await read(bob, path, desc=desc)]
    assert numbers == ([4, 3, 2, 1, 0] if desc == "1" else [0, 1, 2, 3, 4])


async def test_large_items_make_small_pages(monkeypatch: Any, api: Any, bob: Any, path: str) -> None:
    """Pages are bounded by the items' size as well as by their number."""
    monkeypatch.setattr(item_pages, "_PAGE_BYTES", 1000)
    await push(bob, path, [{"n": n, "x": "x" * 300} for n in range(10)])
    asked: list[Any] = []

    class _Counting(_Noting):
        async def items(self, *place: Any, **part: Any) -> Any:
            asked.append(part["limit"])
            return await self._storages.items(*place, **part)

    state = api.services.state
    object.__setattr__(api.services, "state", replace(state, storages=_Counting(state.storages, [])))
    assert [item["n"] for item in await read(bob, path)] == list(range(10))
    assert asked == [3, 3, 3, 1]


async def test_filters_come_after_the_limit(bob: Any, path: str) -> None:
    """Pages are of stored items, so one that is filtered may be short; clients go on by what was scanned."""
    await push(bob, path, [{"#a": 1}, {"b": 1}, {"#c": 1}, {"d": 1}])
    answer = await bob.http.get(path, params={"limit": 3, "clean": 1})
    assert (answer.json(), answer.headers["x-apify-pagination-count"]) == ([{"b": 1}], "3")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({"fields": "b,a"}, [{"b": {"c": 1, "d": [1]}, "a": 1}], id="fields"),
        pytest.param({"fields": "a", "outputFields": "x"}, [{"x": 1}], id="outputFields"),
        pytest.param({"omit": "b,#h"}, [{"a": 1}], id="omit"),
        pytest.param({"flatten": "b", "skipHidden": "1"}, [{"a": 1, "b.c": 1, "b.d": [1]}], id="flatten, skipHidden"),
        pytest.param({"unwind": "b", "fields": "c,d"}, [{"c": 1, "d": [1]}], id="unwind"),
        pytest.param({"fields": "none", "skipEmpty": "true"}, [], id="skipEmpty"),
    ],
)
async def test_transformations(bob: Any, path: str, query: Any, expected: Any) -> None:
    """Each parameter reaches the items."""
    await push(bob, path, {"a": 1, "b": {"c": 1, "d": [1]}, "#h": 1})
    assert await read(bob, path, **query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "format=pdf",
        "limit=-1",
        "offset=x",
        "desc=maybe",
        "outputFields=a",
        "delimiter=ab",
        "delimiter=%22",
        "delimiter=%0A",
        "fields=" + ",".join(map(str, range(1001))),
    ],
)
async def test_bad_queries(bob: Any, path: str, query: str) -> None:
    """A wrong parameter is told by its name."""
    answer = await bob.http.get(f"{path}?{query}")
    assert (answer.status_code, answer.json()["error"]["data"]["field"]) == (400, query.partition("=")[0])


async def test_unknown_view(bob: Any, path: str) -> None:
    """A dataset that is no run's has no views."""
    error = await bob.get(f"{path.removeprefix('/v2')}?view=short", 400)
    assert error["type"] == "requested-dataset-view-does-not-exist"


TABLE: list[Any] = [{"a": 1, "b": {"c": "x,y"}}, {"b": {"c": '"ž"', "d": [True, None]}, "e": "=1+1"}]
COLUMNS = ["a", "b/c", "b/d/0", "b/d/1", "e"]
CELLS = [["1", "x,y", "", "", ""], ["", '"ž"', "true", "", "=1+1"]]


@pytest.mark.parametrize("page_items", [1000, 1], ids=["one page", "many"])
@pytest.mark.parametrize(
    ("query", "delimiter", "rows"),
    [
        pytest.param({}, ",", [COLUMNS, *CELLS], id="default"),
        pytest.param({"delimiter": ";"}, ";", [COLUMNS, *CELLS], id="delimiter"),
        pytest.param({"delimiter": "\\t"}, "\t", [COLUMNS, *CELLS], id="tab"),
        pytest.param({"skipHeaderRow": "1"}, ",", CELLS, id="no header"),
        pytest.param({"fields": "e,a"}, ",", [["e", "a"], ["", "1"], ["=1+1", ""]], id="fields in order"),
    ],
)
async def test_csv(
    monkeypatch: Any, bob: Any, path: str, query: Any, delimiter: str, rows: Any, page_items: int
) -> None:
    """The columns are those of all items, also of later pages; the file says that it is UTF-8."""
    monkeypatch.setattr(item_pages, "_PAGE_ITEMS", page_items)
    await push(bob, path, TABLE)
    answer = await bob.http.get(path, params={"format": "csv", **query})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.content.startswith(b"\xef\xbb\xbf")
    text = answer.content.decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)) == rows


@pytest.mark.parametrize(
    ("query", "has_bom"),
    [("format=csv&bom=0", False), ("format=csv", True), ("format=json", False), ("format=jsonl&bom=1", True)],
)
async def test_byte_order_mark(bob: Any, path: str, query: str, has_bom: bool) -> None:
    """Only CSV has one by itself."""
    await push(bob, path, ITEMS)
    assert (await bob.http.get(f"{path}?{query}")).content.startswith(b"\xef\xbb\xbf") == has_bom


@pytest.mark.parametrize("format_", ["csv", "html", "xlsx"])
async def test_too_many_columns(bob: Any, path: str, format_: str) -> None:
    """A table too wide is refused before its first byte."""
    await push(bob, path, [{f"{row}-{n}": n for n in range(1001)} for row in range(2)])
    answer = await bob.http.get(path, params={"format": format_})
    assert (answer.status_code, answer.json()["error"]["data"]["maxColumns"]) == (400, 2000)
    assert (await bob.http.get(path, params={"format": format_, "limit": 1})).status_code == 200


async def test_xml_and_rss(bob: Any, path: str) -> None:
    """Each item is an element, under the names that were asked for."""
    await push(bob, path, ITEMS)
    xml = await bob.http.get(path, params={"format": "xml", "xmlRoot": "all", "xmlRow": "one"})
    assert xml.headers["content-type"] == "application/xml; charset=utf-8"
    root = ElementTree.fromstring(xml.content)
    assert (root.tag, [row.findtext("name") for row in root]) == ("all", [item["name"] for item in ITEMS])
    rss = await bob.http.get(path, params={"format": "rss", "feedTitle": "News"})
    assert rss.headers["content-type"] == "application/rss+xml; charset=utf-8"
    channel = ElementTree.fromstring(rss.content)[0]
    assert (channel.findtext("title"), len(channel.findall("item"))) == ("News", 5)
    assert urlsplit(channel.findtext("link") or "").path == path


async def test_html_runs_nothing(bob: Any, path: str) -> None:
    """Items are anybody's text: as a page they are a table, and have no rights on the API's origin."""
    await push(bob, path, {"<b>": "<script>alert(1)</script>"})
    answer = await bob.http.get(path, params={"format": "html"})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert "<script" not in answer.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text


def sheet_of(workbook: bytes) -> list[list[tuple[str, str]]]:
    """The rows of the first sheet, each cell with its type."""
    namespace = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(io.BytesIO(workbook)) as file:
        sheet = ElementTree.fromstring(file.read("xl/worksheets/sheet1.xml"))
    return [
        [(cell.attrib.get("t", "n"), "".join(cell.itertext())) for cell in row.iter(f"{namespace}c")]
        for row in sheet.iter(f"{namespace}row")
    ]


@pytest.mark.parametrize("page_items", [1000, 1], ids=["one page", "many"])
async def test_xlsx(monkeypatch: Any, bob: Any, path: str, page_items: int) -> None:
    """A workbook with a sheet; texts stay texts, numbers that a sheet would round become texts."""
    monkeypatch.setattr(item_pages, "_PAGE_ITEMS", page_items)
    await push(bob, path, [{"a": 1.5, "b": "=1+1", "c": True}, {"a": 2**60, "d": "http://x/", "e": "x" * 40_000}])
    answer = await bob.http.get(path, params={"format": "xlsx", "attachment": "1"})
    assert answer.headers["content-type"] == "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    assert answer.headers["content-disposition"].endswith('.xlsx"')
    header, first, second = sheet_of(answer.content)
    assert [text for _, text in header] == ["a", "b", "c", "d", "e"]
    assert first == [("n", "1.5"), ("inlineStr", "=1+1"), ("b", "1")]
    assert second == [("inlineStr", str(2**60)), ("inlineStr", "http://x/"), ("inlineStr", "x" * 32_767)]
    bare = await bob.http.get(path, params={"format": "xlsx", "skipHeaderRow": "1"})
    assert sheet_of(bare.content) == [first, second]


async def test_attachment(bob: Any, dataset: Any, path: str) -> None:
    """A browser can save the items as a file."""
    answer = await bob.http.get(path, params={"format": "csv", "attachment": "true"})
    assert answer.headers["content-disposition"] == f'attachment; filename="{dataset["id"]}.csv"'


async def test_unwinding_does_not_fill_memory(api: Any, bob: Any, path: str) -> None:
    """An answer that is huge compared with its item is sent as it is made, in small pieces."""
    await push(bob, path, {"a": list(range(3000)), "b": "x" * 10_000})
    sizes: list[int] = []

    async def noting_app(scope: Any, receive: Any, send: Any) -> None:
        async def noting_send(message: Any) -> None:
            sizes.append(len(message.get("body", b"")))
            await send(message)

        await api.app(scope, receive, noting_send)

    async with client_of(noting_app, bob) as http:
        answer = await http.get(path, params={"unwind": "a", "format": "jsonl"})
    assert answer.text.count("\n") == 3000
    assert sum(sizes) == len(answer.content) > 30_000_000
    assert max(sizes) < 300_000


@pytest.mark.parametrize(
    "storages",
    [{"dataset": SCHEMA}, {"datasets": {"default": SCHEMA, "other": {"actorSpecification": 1}}}],
    ids=["dataset", "datasets"],
)
async def test_schema(api: Any, bob: Any, run_of: Any, storages: Any) -> None:
    """What is pushed to a run's default dataset must fit its build's schema: all items or none are stored."""
    run = await run_of(storages)
    own = await api.run_itself(run)
    path = f"/v2/datasets/{run['defaultDatasetId']}/items"
    bad = [{"n": 1}, {"n": "1"}, {"n": 2, "tags": ["a", 3, 4]}, {}]
    for to in (path, f"/v2/actor-runs/{run['id']}/dataset/items"):
        error = (await push(own, to, bad, 400))["error"]
        assert (error["type"], error["message"]) == ("schema-validation-error", "Schema validation failed")
        invalid = error["data"]["invalidItems"]
        assert [item["itemPosition"] for item in invalid] == [1, 2, 3]
        assert invalid[0]["validationErrors"][0] == {
            "instancePath": "/n",
            "schemaPath": "#/properties/n/type",
            "keyword": "type",
            "params": {"type": "integer"},
            "message": "'1' is not of type 'integer'",
        }
        assert [found["instancePath"] for found in invalid[1]["validationErrors"]] == ["/tags/1", "/tags/2"]
    await push(own, path, [{"n": n} for n in range(10_000)])
    await push(own, path, {"n": 1, "tags": ["a"]})
    error = (await push(own, path, [{"n": n} for n in range(10_000)] + [{}], 400))["error"]
    assert [item["itemPosition"] for item in error["data"]["invalidItems"]] == [10_000]
    assert (await bob.get(f"/datasets/{run['defaultDatasetId']}"))["itemCount"] == 10_001


async def test_other_datasets_are_not_checked(api: Any, run_of: Any) -> None:
    """A dataset that a run opens by name takes any items."""
    run = await run_of({"dataset": SCHEMA})
    own = await api.run_itself(run)
    named = await own.post("/datasets?name=others")
    await push(own, f"/v2/datasets/{named['id']}/items", {"n": "any"})


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"type": "nothing"}, id="no schema"),
        pytest.param({"$ref": "http://127.0.0.1:9/elsewhere.json"}, id="another address"),
        pytest.param({"properties": {"n": {"$ref": "#/nowhere"}}}, id="nowhere"),
        pytest.param({"$ref": "#"}, id="itself"),
        pytest.param({"properties": {"n": {"pattern": "("}}}, id="a bad pattern"),
    ],
)
async def test_unusable_schemas(bob: Any, run_of: Any, fields: Any) -> None:
    """A schema that can't be used is told to who pushes; it is neither an error of ours nor fetched from anywhere."""
    run = await run_of({"dataset": {"actorSpecification": 1, "fields": fields}})
    answer = await bob.http.post(f"/v2/datasets/{run['defaultDatasetId']}/items", json={"n": "x"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid-request")


async def test_views(bob: Any, run_of: Any) -> None:
    """A view of the schema chooses what the query leaves open; the query wins."""
    run = await run_of({"dataset": SCHEMA})
    path = f"/v2/datasets/{run['defaultDatasetId']}/items"
    await push(bob, path, ITEMS)
    assert await read(bob, path, view="short") == [{"name": f"item {n}", "n": n} for n in (4, 3, 2)]
    assert await read(bob, path, view="short", limit=1, fields="n", desc=0) == [{"n": 0}]
    assert await read(bob, path, view="bare") == ITEMS
    assert (await bob.http.get(path, params={"view": "none"})).status_code == 400


async def test_of_a_run(api: Any, bob: Any) -> None:
    """A run's default dataset is at its own path too, also as the last run's, and for the run's own token."""
    await bob.built_actor()
    run = await bob.post("/actors/hello/runs")
    own = await api.run_itself(run)
    paths = (
        f"/v2/datasets/{run['defaultDatasetId']}/items",
        f"/v2/actor-runs/{run['id']}/dataset/items",
        f"/v2/actors/hello/runs/{run['id']}/dataset/items",
        "/v2/acts/hello/runs/last/dataset/items",
    )
    for number, path in enumerate(paths):
        await push(own, path, {"n": number})
    for path in paths:
        assert [item["n"] for item in await read(bob, path)] == [0, 1, 2, 3]


async def test_signed(api: Any, bob: Any, nobody: Any, dataset: Any, path: str) -> None:
    """A signature opens a dataset's items, for reading alone, until it expires."""
    await push(bob, path, ITEMS)
    public = urlsplit((await bob.get(f"/datasets/{dataset['id']}"))["itemsPublicUrl"])
    answer = await nobody.get(f"{public.path}?{public.query}&limit=2")
    assert (answer.status_code, answer.json()) == (200, ITEMS[:2])
    assert (await nobody.post(f"{public.path}?{public.query}", json={})).status_code == 401
    secret = url_signing_secret(api.services.box, dataset["id"])
    until = int(api.clock.now().timestamp() * 1000) + 1000
    brief = storage_signature(secret, dataset["id"], expires_at_ms=until)
    assert (await nobody.get(f"{path}?signature={brief}")).status_code == 200
    api.clock.pass_by(seconds=2)
    expired = await nobody.get(f"{path}?signature={brief}")
    assert (expired.status_code, expired.json()["error"]["type"]) == (403, "invalid-signature")
    assert (await nobody.get(path)).status_code == 401
    other = await bob.post("/datasets")
    assert (await nobody.get(f"/v2/datasets/{other['id']}/items?{public.query}")).status_code == 403


async def test_somebody_elses(api: Any, bob: Any, eve: Any, path: str) -> None:
    """What is bob's is not there for eve; a token that may only read does not push."""
    await push(bob, path, ITEMS)
    assert (await eve.http.get(path)).status_code == 404
    assert (await eve.http.post(path, json={})).status_code == 404
    reader = await api.caller(bob.user, frozenset({"storages:read"}))
    assert (await reader.http.post(path, json={})).status_code == 403
    assert await read(reader, path) == ITEMS
