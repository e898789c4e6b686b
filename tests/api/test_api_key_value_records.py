"""Records and keys of key-value stores: what goes in comes out, to the byte, and nothing leaves its store."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import brotli
import httpx
import pytest
from apify_client import _models as models

from gateway.auth import url_signing_secret
from gateway.core.signed_urls import record_signature, storage_signature
from gateway.core.storages import MAX_INLINE_RECORD_BYTES
from gateway.state.ports import StateUnavailable

SMALL, LARGE = b"small \x00\xff", os.urandom(MAX_INLINE_RECORD_BYTES + 1)


@pytest.fixture
async def store(bob: Any) -> Any:
    """A store of bob's."""
    return await bob.post("/key-value-stores?name=things")


@pytest.fixture
def records(store: Any) -> str:
    """The path of its records."""
    return f"/v2/key-value-stores/{store['id']}/records"


def blobs_of(api: Any, store: Any) -> list[str]:
    folder = api.services.settings.data / "blobs" / "key-value-stores" / store["id"]
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def change_state(api: Any, **stores: Any) -> None:
    object.__setattr__(api.services, "state", replace(api.services.state, **stores))


async def put(bob: Any, path: str, content: Any, content_type: str | None = "text/plain", **headers: str) -> Any:
    if content_type is not None:
        headers["Content-Type"] = content_type
    return await bob.http.put(path, content=content, headers=headers)


@pytest.mark.parametrize("value", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_what_goes_in_comes_out(bob: Any, records: str, value: bytes, method: str) -> None:
    """The bytes, their number and the content type to the letter; a HEAD says the same without them."""
    kind = 'Image/PNG; charset="X y";a=1'
    stored = await bob.http.request(method, f"{records}/pic", content=value, headers={"Content-Type": kind})
    assert (stored.status_code, stored.json()) == (201, {"data": {}})
    assert urlsplit(stored.headers["location"]).path == f"{records}/pic"
    got = await bob.http.get(f"{records}/pic")
    assert (got.status_code, got.content, got.headers["content-type"]) == (200, value, kind)
    head = await bob.http.head(f"{records}/pic")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "etag", "last-modified"):
        assert head.headers[name] == got.headers[name]
    assert got.headers["content-length"] == str(len(value))


async def test_no_content_type(bob: Any, records: str) -> None:
    """Bytes of no stated kind are an octet stream."""
    assert (await put(bob, f"{records}/k", b"x", None)).status_code == 201
    assert (await bob.http.get(f"{records}/k")).headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("value", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("br", brotli.compress),
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
)
async def test_encoded_bodies(bob: Any, records: str, value: bytes, encoding: str, encode: Any) -> None:
    """A body is stored decoded, so every reader sees what it stands for."""
    stored = await put(bob, f"{records}/k", encode(value), **{"Content-Encoding": encoding})
    assert stored.status_code == 201
    assert (await bob.http.get(f"{records}/k")).content == value


async def test_streamed_body(api: Any, bob: Any, store: Any, records: str) -> None:
    """A body of unknown length is stored as it comes; the size is counted."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"0123456789" * 100

    assert (await put(bob, f"{records}/k", pieces())).status_code == 201
    got = await bob.http.get(f"{records}/k")
    assert (got.content, got.headers["content-length"]) == (b"0123456789" * 4000, "40000")
    assert len(blobs_of(api, store)) == 1


@pytest.mark.parametrize(
    ("body", "headers", "status", "error_type"),
    [
        pytest.param(b"x", {"Content-Encoding": "zstd"}, 415, "unsupported-content-encoding", id="unknown encoding"),
        pytest.param(b"plain", {"Content-Encoding": "gzip"}, 400, "invalid-request", id="not what it says"),
        pytest.param(
            gzip.compress(LARGE)[:-9], {"Content-Encoding": "gzip"}, 400, "invalid-request", id="cut in its encoding"
        ),
        pytest.param(b"", {"Content-Type": "application/json"}, 400, "invalid-request", id="empty JSON"),
        pytest.param(b"", {"Content-Type": "application/x+JSON; a=b"}, 400, "invalid-request", id="empty other JSON"),
        pytest.param(
            b"x", {"Content-Type": "a" * 1001}, 415, "invalid-content-type-header", id="a content type too long"
        ),
    ],
)
async def test_refused_bodies(
    api: Any, bob: Any, store: Any, records: str, body: bytes, headers: Any, status: int, error_type: str
) -> None:
    """What can't be stored is told, and the record stays as it was."""
    await put(bob, f"{records}/k", b"before")
    refused = await bob.http.put(f"{records}/k", content=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["type"]) == (status, error_type)
    assert (await bob.http.get(f"{records}/k")).content == b"before"
    assert blobs_of(api, store) == []


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(b"x" * 2049, {}, id="as it is"),
        pytest.param(brotli.compress(b"x" * 100_000), {"Content-Encoding": "br"}, id="unpacked"),
    ],
)
async def test_too_large(api: Any, bob: Any, store: Any, records: str, body: bytes, headers: Any) -> None:
    """The limit is that of the decoded bytes; what is just within it is stored."""
    settings = api.services.settings.model_copy(update={"max_record_bytes": 2048})
    object.__setattr__(api.services, "settings", settings)
    assert (await put(bob, f"{records}/k", b"x" * 2048)).status_code == 201
    refused = await put(bob, f"{records}/k", body, **headers)
    assert (refused.status_code, refused.json()["error"]["type"]) == (413, "record-too-large")
    assert refused.json()["error"]["data"] == {"limitBytes": 2048}
    assert (await bob.http.get(f"{records}/k")).content == b"x" * 2048


async def test_too_large_as_a_blob(api: Any, bob: Any, store: Any, records: str) -> None:
    """Of a body that turns out too large while its blob is written, nothing is left."""
    limit = 3 * MAX_INLINE_RECORD_BYTES
    object.__setattr__(api.services, "settings", api.services.settings.model_copy(update={"max_record_bytes": limit}))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    refused = await put(bob, f"{records}/k", pieces())
    assert (refused.status_code, refused.json()["error"]["type"]) == (413, "record-too-large")
    assert (await bob.http.get(f"{records}/k")).status_code == 404
    assert blobs_of(api, store) == []


@pytest.mark.parametrize("key", ["a", "x" * 256, "!-_.'()", "...", "INPUT.json", "%41"])
async def test_good_keys(bob: Any, records: str, key: str) -> None:
    """Every legal key can be written, listed and read; escapes in paths are undone once."""
    assert (await put(bob, f"{records}/{key}", b"1")).status_code == 201
    assert (await bob.http.get(f"{records}/{key}")).content == b"1"
    listed = await bob.get(records.removeprefix("/v2").replace("/records", "/keys"))
    assert [item["key"] for item in listed["items"]] == ["A" if key == "%41" else key]


@pytest.mark.parametrize(
    "key", ["a%2Fb", "..%2F..%2Fx", "%2E%2E", "%2e", "a%2F", "%2F%2Fa", "a%20b", "%C3%A9", "%00", "a%252Fb"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
async def test_bad_keys(bob: Any, records: str, key: str, method: str) -> None:
    """A key that no record may have, above all one that would leave its store, is told as such by every method."""
    url = httpx.URL("http://api.localhost").copy_with(raw_path=f"{records}/{key}".encode())
    refused = await bob.http.request(method, url)
    assert refused.status_code == 400
    if method != "HEAD":
        assert refused.json()["error"]["type"] == "invalid-record-key"


@pytest.mark.parametrize("key", ["", "/", "/%2F"])
async def test_no_key(bob: Any, records: str, key: str) -> None:
    """Without a key there is no such page, and no redirect in a circle."""
    url = httpx.URL("http://api.localhost").copy_with(raw_path=f"{records}{key}".encode())
    for method in ("PUT", "DELETE"):
        assert (await bob.http.request(method, url)).status_code in {404, 405}


async def test_longest_key(bob: Any, records: str) -> None:
    """One character more than a key may have is too much."""
    assert (await put(bob, f"{records}/{'x' * 257}", b"1")).status_code == 400


async def test_delete(api: Any, bob: Any, store: Any, records: str) -> None:
    """A deleted record is gone with its bytes; deleting it again is fine."""
    await put(bob, f"{records}/k", LARGE)
    for _ in range(2):
        assert (await bob.http.delete(f"{records}/k")).status_code == 204
    gone = await bob.http.get(f"{records}/k")
    assert (gone.status_code, gone.json()["error"]["type"]) == (404, "record-not-found")
    assert (await bob.http.head(f"{records}/k")).status_code == 404
    assert blobs_of(api, store) == []


async def test_replaced_blobs_go(api: Any, bob: Any, store: Any, records: str) -> None:
    """Of a record that is written several times only the last bytes are kept."""
    for value, number in ((LARGE, 1), (LARGE + b"2", 1), (SMALL, 0), (LARGE, 1)):
        await put(bob, f"{records}/k", value)
        assert (await bob.http.get(f"{records}/k")).content == value
        assert len(blobs_of(api, store)) == number


class _NoDeleting:
    """Blobs that can't be deleted at the moment."""

    def __init__(self, blobs: Any) -> None:
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def delete(self, key: str) -> None:
        raise StateUnavailable("Blobs: can't delete")


async def test_old_bytes_that_stay_are_no_error(api: Any, bob: Any, store: Any, records: str) -> None:
    """The record is written: what remains to be tidied must not make a client write it again."""
    change_state(api, blobs=_NoDeleting(api.services.state.blobs))
    await put(bob, f"{records}/k", LARGE)
    assert (await put(bob, f"{records}/k", SMALL)).status_code == 201
    assert (await bob.http.get(f"{records}/k")).content == SMALL
    assert len(blobs_of(api, store)) == 1


class _ReplacedMeanwhile:
    """Blobs of which one is replaced, once, between a reader's look at the row and its opening."""

    def __init__(self, blobs: Any, replace_it: Any) -> None:
        self._blobs = blobs
        self._replace_it = replace_it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def open(self, *place: Any, **part: Any) -> Any:
        replace_it, self._replace_it = self._replace_it, None
        if replace_it is not None:
            await replace_it()
        return await self._blobs.open(*place, **part)


@pytest.mark.parametrize("new", [SMALL, LARGE[::-1]], ids=["small", "large"])
async def test_read_while_replaced(api: Any, bob: Any, records: str, new: bytes) -> None:
    """A reader whose bytes vanish under it gets the new ones, whole."""
    await put(bob, f"{records}/k", LARGE, "old/kind")
    blobs = _ReplacedMeanwhile(api.services.state.blobs, lambda: put(bob, f"{records}/k", new, "new/kind"))
    change_state(api, blobs=blobs)
    got = await bob.http.get(f"{records}/k")
    assert (got.content, got.headers["content-type"]) == (new, "new/kind")


async def test_lost_bytes(api: Any, bob: Any, store: Any, records: str) -> None:
    """A record whose bytes are lost is an error, never an empty or half record."""
    await put(bob, f"{records}/k", LARGE)
    (name,) = blobs_of(api, store)
    await api.services.state.blobs.delete(f"key-value-stores/{store['id']}/{name}")
    assert (await bob.http.get(f"{records}/k")).status_code == 500


async def test_store_that_goes_while_its_record_comes(api: Any, bob: Any, store: Any, records: str) -> None:
    """Where the store is deleted while a large body arrives, the caller is told and no bytes are left behind."""

    async def pieces() -> AsyncIterator[bytes]:
        yield LARGE
        assert (await bob.http.delete(f"/v2/key-value-stores/{store['id']}")).status_code == 204
        yield LARGE

    refused = await put(bob, f"{records}/k", pieces())
    assert (refused.status_code, refused.json()["error"]["type"]) == (404, "record-not-found")
    assert blobs_of(api, store) == []


async def test_writes_at_once(api: Any, bob: Any, store: Any, records: str) -> None:
    """Of several writes at the same time one wins as a whole, and only its bytes are kept."""
    values = [bytes([number]) * (MAX_INLINE_RECORD_BYTES + 1) for number in range(6)]
    answers = await asyncio.gather(*(put(bob, f"{records}/k", value) for value in values))
    assert {answer.status_code for answer in answers} == {201}
    assert (await bob.http.get(f"{records}/k")).content in values
    assert len(blobs_of(api, store)) == 1


async def test_untrusted_pages(bob: Any, records: str) -> None:
    """A page in a record runs no script on the API's origin, and is unmodified; as an attachment it is saved."""
    page = b"<script>alert(1)</script>"
    await put(bob, f"{records}/page.html", page, "text/html")
    got = await bob.http.get(f"{records}/page.html")
    assert (got.content, got.headers["content-type"]) == (page, "text/html")
    assert got.headers["content-security-policy"] == "sandbox"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "content-disposition" not in got.headers
    for flag in ("true", "1"):
        saved = await bob.http.get(f"{records}/page.html?attachment={flag}")
        assert saved.headers["content-disposition"] == 'attachment; filename="page.html"'
        assert saved.content == page


@pytest.mark.parametrize("value", [SMALL, LARGE], ids=["small", "large"])
async def test_entity_tags(bob: Any, records: str, value: bytes) -> None:
    """Who has it gets 304; whatever changes about the record, its bytes at the same moment too, changes its tag."""
    await put(bob, f"{records}/k", value, "a/b")
    tag = (await bob.http.get(f"{records}/k")).headers["etag"]
    for given in (tag, f'"other", W/{tag}', "*"):
        unchanged = await bob.http.get(f"{records}/k", headers={"If-None-Match": given})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    assert (await bob.http.get(f"{records}/k", headers={"If-None-Match": '"other"'})).status_code == 200
    tags = {tag}
    for changed, kind in ((value[::-1], "a/b"), (value, "a/c"), (value + b"1", "a/b")):
        await put(bob, f"{records}/k", changed, kind)
        tags.add((await bob.http.get(f"{records}/k")).headers["etag"])
    assert len(tags) == 4


@pytest.mark.parametrize("value", [b"0123456789", b"0123456789" * 4000], ids=["small", "large"])
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 6),
        ("bytes=7-", 7, None),
        ("bytes=-3", -3, None),
        ("bytes=5-999999", 5, None),
        ("bytes=-999999", 0, None),
    ],
)
async def test_ranges(bob: Any, records: str, value: bytes, asked: str, start: int, end: int | None) -> None:
    """One range is served as such, cut to what there is."""
    await put(bob, f"{records}/k", value)
    got = await bob.http.get(f"{records}/k", headers={"Range": asked})
    first, last = range(len(value))[start:end][0], range(len(value))[start:end][-1]
    assert (got.status_code, got.content) == (206, value[start:end])
    assert got.headers["content-range"] == f"bytes {first}-{last}/{len(value)}"
    assert got.headers["content-length"] == str(last - first + 1)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Range": "bytes=10-"}, 416, id="behind the end"),
        pytest.param({"Range": "bytes=-0"}, 416, id="the last none"),
        pytest.param({"Range": "bytes=5-2"}, 200, id="backwards"),
        pytest.param({"Range": "bytes=0-1,3-4"}, 200, id="several"),
        pytest.param({"Range": "lines=0-1"}, 200, id="not of bytes"),
        pytest.param({"Range": "bytes=0-1", "If-Range": '"another"'}, 200, id="if it were another"),
    ],
)
async def test_other_ranges(bob: Any, records: str, headers: Any, status: int) -> None:
    """What is no range to serve gives all of it; one behind the end is refused with the size."""
    await put(bob, f"{records}/k", b"0123456789")
    got = await bob.http.get(f"{records}/k", headers=headers)
    assert got.status_code == status
    if status == 416:
        assert got.headers["content-range"] == "bytes */10"
        assert got.json()["error"]["type"] == "range-not-satisfiable"
    else:
        assert got.content == b"0123456789"


async def keys(bob: Any, store: Any, **query: Any) -> models.ListOfKeys:
    """A list of keys as the official client reads it."""
    answer = await bob.http.get(f"/v2/key-value-stores/{store['id']}/keys", params=query)
    assert answer.status_code == 200, answer.text
    assert "nextExclusiveStartKey" in answer.json()["data"]  # clients wait for an explicit null
    return models.ListOfKeysResponse.model_validate(answer.json()).data


async def test_keys(bob: Any, store: Any, records: str) -> None:
    """All keys in the order of their bytes, page after page, each with its size; none twice, none missing."""
    names = ["b", "a", "B", "a-1", "a.1", "_", "a1"]
    for number, name in enumerate(names):
        await put(bob, f"{records}/{name}", b"x" * number)
    whole = await keys(bob, store)
    assert [(item.key, item.size) for item in whole.items] == sorted((name, n) for n, name in enumerate(names))
    assert (whole.count, whole.limit, whole.is_truncated, whole.next_exclusive_start_key) == (7, 1000, False, None)
    seen, after = [], None
    while True:
        page = await keys(bob, store, limit=3, **({"exclusiveStartKey": after} if after else {}))
        seen += [item.key for item in page.items]
        assert page.exclusive_start_key == after
        after = page.next_exclusive_start_key
        assert page.is_truncated == (after is not None)
        if after is None:
            break
    assert seen == sorted(names)
    assert [item.key for item in (await keys(bob, store, prefix="a")).items] == ["a", "a-1", "a.1", "a1"]
    assert [item.key for item in (await keys(bob, store, prefix="a", exclusiveStartKey="a.1")).items] == ["a1"]
    assert (await keys(bob, store, prefix="nothing")).items == []


@pytest.mark.parametrize(
    ("query", "limit"), [({"limit": 0}, 1000), ({"limit": 5000}, 1000), ({"limit": 7}, 7)], ids=["0", "many", "few"]
)
async def test_limits_of_keys(bob: Any, store: Any, query: Any, limit: int) -> None:
    """A list has at most 1000 keys."""
    assert (await keys(bob, store, **query)).limit == limit


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=x",
        "prefix=a%2F",
        "prefix=%00",
        f"prefix={'x' * 257}",
        "exclusiveStartKey=%E9",
        "collection=c",
    ],
)
async def test_bad_lists_of_keys(bob: Any, store: Any, query: str) -> None:
    """A wrong parameter is told by its name."""
    error = await bob.get(f"/key-value-stores/{store['id']}/keys?{query}", 400)
    assert (error["type"], error["data"]["field"]) == ("invalid-request", query.partition("=")[0])


async def test_public_urls(bob: Any, nobody: Any, store: Any, records: str) -> None:
    """The address of each listed record works without a token, for this record alone."""
    await put(bob, f"{records}/it's(1)", SMALL)
    await put(bob, f"{records}/other", LARGE)
    page = await keys(bob, store)
    for item, value in zip(page.items, (SMALL, LARGE), strict=True):
        split = urlsplit(str(item.record_public_url))
        got = await nobody.get(f"{split.path}?{split.query}")
        assert (got.status_code, got.content) == (200, value)
        assert (await nobody.head(f"{split.path}?{split.query}")).status_code == 200
    stranger = await nobody.get(f"{records}/other?{urlsplit(str(page.items[0].record_public_url)).query}")
    assert (stranger.status_code, stranger.json()["error"]["type"]) == (403, "invalid-signature")


async def test_lists_for_readers_are_not_signed(api: Any, bob: Any, nobody: Any, store: Any, records: str) -> None:
    """A record's signature holds for ever, so who may only read does not get one."""
    await put(bob, f"{records}/k", b"1")
    reader = await api.caller(bob.user, frozenset({"storages:read"}))
    signed = storage_signature(url_signing_secret(api.services.box, store["id"]), store["id"])
    by_reader = await reader.get(f"/key-value-stores/{store['id']}/keys")
    by_nobody = (await nobody.get(f"/v2/key-value-stores/{store['id']}/keys?signature={signed}")).json()["data"]
    for page in (by_reader, by_nobody):
        assert "signature" not in page["items"][0]["recordPublicUrl"]


async def test_signed_lists_of_keys(api: Any, bob: Any, nobody: Any, store: Any) -> None:
    """A signature opens the list of keys until it expires, and no record."""
    secret = url_signing_secret(api.services.box, store["id"])
    until = int(api.clock.now().timestamp() * 1000) + 60_000
    signed = storage_signature(secret, store["id"], expires_at_ms=until)
    path = f"/v2/key-value-stores/{store['id']}"
    assert (await nobody.get(f"{path}/keys?signature={signed}")).status_code == 200
    assert (await nobody.get(f"{path}/keys?signature={signed}==")).status_code == 200
    assert (await nobody.get(f"{path}/records/k?signature={signed}")).status_code == 403
    api.clock.pass_by(minutes=2)
    assert (await nobody.get(f"{path}/keys?signature={signed}")).status_code == 403


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
async def test_a_signature_never_writes(api: Any, nobody: Any, store: Any, records: str, method: str) -> None:
    """Signed addresses are for reading."""
    signature = record_signature(url_signing_secret(api.services.box, store["id"]), "k")
    assert (await nobody.request(method, f"{records}/k?signature={signature}")).status_code == 401


async def test_no_signature_no_token(nobody: Any, records: str) -> None:
    """Without either nothing is told."""
    assert (await nobody.get(f"{records}/k")).status_code == 401
    unknown = f"/v2/key-value-stores/{'A' * 17}/records/k?signature=abc"
    assert (await nobody.get(unknown)).status_code == 403


async def test_somebody_elses(bob: Any, eve: Any, records: str) -> None:
    """What is bob's is not there for eve, whatever she does to it."""
    await put(bob, f"{records}/k", b"1")
    for method in ("GET", "PUT", "POST", "DELETE"):
        answer = await eve.http.request(method, f"{records}/k", content=b"2")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "record-not-found")
    assert (await eve.http.get(records.replace("/records", "/keys"))).status_code == 404
    assert (await bob.http.get(f"{records}/k")).content == b"1"


async def test_scopes(api: Any, bob: Any, records: str) -> None:
    """A token that may only read does not write."""
    reader = await api.caller(bob.user, frozenset({"storages:read"}))
    await put(bob, f"{records}/k", b"1")
    assert (await reader.http.get(f"{records}/k")).status_code == 200
    for method in ("PUT", "POST", "DELETE"):
        assert (await reader.http.request(method, f"{records}/k", content=b"2")).status_code == 403


async def test_of_a_run(api: Any, bob: Any) -> None:
    """A run's default store is at its own path too, also as the last run's, and for the run's own token."""
    await bob.built_actor()
    run = await bob.post("/actors/hello/runs")
    own = await api.run_itself(run)
    paths = (
        f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}/records/OUTPUT",
        f"/v2/actor-runs/{run['id']}/key-value-store/records/OUTPUT",
        f"/v2/actors/hello/runs/{run['id']}/key-value-store/records/OUTPUT",
        "/v2/actors/hello/runs/last/key-value-store/records/OUTPUT",
    )
    for number, path in enumerate(paths):
        value = str(number).encode()
        assert (await put(own, path, value)).status_code == 201
        for other in paths:
            assert (await bob.http.get(other)).content == value
    assert (await bob.http.delete(paths[1])).status_code == 204
    assert (await bob.http.get(paths[0])).status_code == 404
