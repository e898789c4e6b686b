"""What a client sends to a queue: kept as it is, with the id that clients compute too, or refused with the field."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.core.queue_requests import (
    MAX_BATCH_REQUESTS,
    cursor_after,
    id_of_cursor,
    is_request_id,
    named_requests,
    queued_request,
    queued_requests,
)
from gateway.core.storages import request_id

URL = "https://a.com/1"
ID = "XDlGv8mrAja1dGa"  # Source: apify-wire.md §3.5
PLAIN = {"uniqueKey": URL, "url": URL}
FULL = PLAIN | {
    "method": "POST",
    "headers": {"Accept": "*/*"},
    "payload": "body",
    "userData": {"label": "DETAIL", "__crawlee": {"state": 3}},
    "retryCount": 2,
    "noRetry": False,
    "loadedUrl": "https://a.com/2",
    "errorMessages": ["Error: first\n  at x", "second"],
    "label": "an extra one",
    "crawlDepth": {"any": [1, None, "ü"]},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
texts = st.text(min_size=1)


def test_it_is_kept_whole() -> None:
    """All that the client gave is there, unknown fields included, under the id that both SDKs compute."""
    request = queued_request(FULL)
    assert (request.id, request.unique_key, request.handled_at) == (ID, URL, None)
    assert request.data == FULL
    assert request.as_api_object() == FULL | {"id": ID}


@pytest.mark.parametrize("field", ["method", "payload", "headers", "userData", "retryCount", "loadedUrl", "handledAt"])
def test_null_is_none(field: str) -> None:
    """Clients may send null for what they leave out."""
    assert queued_request(PLAIN | {field: None}).data == PLAIN | {field: None}


def test_what_is_the_queues_own() -> None:
    """A client that sends back what it was given does not make the end of an old lock part of its request."""
    request = queued_request(PLAIN | {"id": ID, "lockExpiresAt": "2026-01-02T03:04:05.678Z"}, path_id=ID)
    assert request.data == PLAIN


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        pytest.param("2026-01-02T03:04:05.678Z", 3, id="as JavaScript writes it"),
        pytest.param("2026-01-02T03:04:05.678901+00:00", 3, id="as Python writes it"),
        pytest.param("2026-01-02T05:04:05.678+02:00", 3, id="in another zone"),
        pytest.param("2026-01-02T03:04:05.678", 3, id="without an offset: UTC"),
    ],
)
def test_handled_at(text: str, hour: int) -> None:
    """Whatever its offset, the time is one that every client can read back: UTC with milliseconds."""
    request = queued_request(PLAIN | {"handledAt": text})
    assert request.handled_at is not None
    assert request.handled_at.astimezone(UTC).replace(microsecond=0) == datetime(2026, 1, 2, hour, 4, 5, tzinfo=UTC)
    assert request.data["handledAt"] == "2026-01-02T03:04:05.678Z"


@pytest.mark.parametrize(
    ("given_value", "field"),
    [
        pytest.param({"url": URL}, "uniqueKey", id="no unique key"),
        pytest.param(PLAIN | {"uniqueKey": ""}, "uniqueKey", id="an empty unique key"),
        pytest.param(PLAIN | {"uniqueKey": 5}, "uniqueKey", id="a number for a unique key"),
        pytest.param({"uniqueKey": URL}, "url", id="no url"),
        pytest.param(PLAIN | {"url": None}, "url", id="null for a url"),
        pytest.param(PLAIN | {"method": 1}, "method", id="method"),
        pytest.param(PLAIN | {"headers": []}, "headers", id="headers"),
        pytest.param(PLAIN | {"payload": 1}, "payload", id="payload"),
        pytest.param(PLAIN | {"userData": "x"}, "userData", id="userData"),
        pytest.param(PLAIN | {"noRetry": 1}, "noRetry", id="noRetry"),
        pytest.param(PLAIN | {"loadedUrl": {}}, "loadedUrl", id="loadedUrl"),
        pytest.param(PLAIN | {"retryCount": -1}, "retryCount", id="retries below none"),
        pytest.param(PLAIN | {"retryCount": 1.5}, "retryCount", id="half a retry"),
        pytest.param(PLAIN | {"retryCount": True}, "retryCount", id="true is no number"),
        pytest.param(PLAIN | {"retryCount": 2**53}, "retryCount", id="more than JavaScript can count"),
        pytest.param(PLAIN | {"errorMessages": "x"}, "errorMessages", id="errorMessages"),
        pytest.param(PLAIN | {"errorMessages": [{}]}, "errorMessages", id="an error message that is no text"),
        pytest.param(PLAIN | {"handledAt": 1767323045678}, "handledAt", id="handledAt as a number"),
        pytest.param(PLAIN | {"handledAt": "yesterday"}, "handledAt", id="handledAt in words"),
        pytest.param(PLAIN | {"handledAt": "0001-01-01T00:00:00+14:00"}, "handledAt", id="before the calendar"),
        pytest.param(PLAIN | {"id": "AAAAAAAAAAAAAAA"}, "id", id="the id of another"),
        pytest.param(PLAIN | {"id": 5}, "id", id="a number for an id"),
    ],
)
def test_bad_fields(given_value: dict[str, Any], field: str) -> None:
    """What a client could not read back later is refused now, with the field, also where it stands in a batch."""
    with pytest.raises(InvalidRequest, match=field) as refused:
        queued_request(given_value)
    assert refused.value.data == {"field": field}
    with pytest.raises(InvalidRequest) as refused:
        queued_requests([PLAIN, given_value])
    assert refused.value.data == {"field": f"[1].{field}"}


@pytest.mark.parametrize("value", [None, "text", 5, [], [PLAIN]])
def test_no_object(value: Any) -> None:
    """A request is an object."""
    with pytest.raises(InvalidRequest, match="The body must be a JSON object"):
        queued_request(value)


def test_the_path_and_the_unique_key() -> None:
    """A replacement can't change the unique key: the id would no longer follow from it."""
    assert queued_request(FULL, path_id=ID).id == ID
    with pytest.raises(InvalidRequest, match="keeps its uniqueKey"):
        queued_request(FULL, path_id="AAAAAAAAAAAAAAA")


@pytest.mark.parametrize(
    "value",
    [{}, "text", None, [], [PLAIN] * (MAX_BATCH_REQUESTS + 1)],
    ids=["an object", "a text", "null", "none", "too many"],
)
def test_bad_batches(value: Any) -> None:
    """A batch is a list of 1 to 25."""
    with pytest.raises(InvalidRequest, match="list of 1 to 25"):
        queued_requests(value)
    with pytest.raises(InvalidRequest, match="list of 1 to 25"):
        named_requests(value)


def test_batches() -> None:
    """In the order in which they were given."""
    given_list = [{"uniqueKey": str(number), "url": URL} for number in range(MAX_BATCH_REQUESTS)]
    assert [request.unique_key for request in queued_requests(given_list)] == [str(n) for n in range(25)]


def test_named_requests() -> None:
    """By id or unique key, each once, with its unique key where anybody said it."""
    named = named_requests([{"id": "BBBBBBBBBBBBBBB"}, {"uniqueKey": URL}, {"id": ID}])
    assert named == {"BBBBBBBBBBBBBBB": None, ID: URL}


@pytest.mark.parametrize("value", ["x", {}, {"id": ""}, {"id": 5}, {"uniqueKey": ""}, {"uniqueKey": 5}])
def test_bad_names(value: Any) -> None:
    """What names no request is told with its place."""
    with pytest.raises(InvalidRequest, match=r"^\[1\]"):
        named_requests([{"id": ID}, value])


@given(unique_key=texts)
def test_ids(unique_key: str) -> None:
    """Every unique key has an id of the right shape, which a cursor carries and gives back."""
    own_id = request_id(unique_key)
    assert is_request_id(own_id)
    assert id_of_cursor(cursor_after(own_id)) == own_id


@pytest.mark.parametrize("cursor", ["", "x", "ü", "AAAA", "WERsR3Y4bXJBamExZEdhYQ", "a b c", "\x00"])
def test_bad_cursors(cursor: str) -> None:
    """A cursor that is none of ours is refused, and never breaks anything."""
    with pytest.raises(InvalidRequest, match="nextCursor"):
        id_of_cursor(cursor)


@given(value=json_values)
def test_anything_at_all(value: Any) -> None:
    """Any JSON is either refused or a request."""
    for parse in (queued_request, queued_requests, named_requests):
        with pytest.raises(InvalidRequest):
            parse(value)


@given(
    unique_key=texts,
    extra=st.dictionaries(
        st.text().filter(lambda key: key not in {"id", "lockExpiresAt", "handledAt", *FULL}), json_values
    ),
    handled_secs=st.none() | st.floats(0, 4e9),
    offset=st.integers(-12, 14),
)
def test_what_was_given_comes_back(
    unique_key: str, extra: dict[str, Any], handled_secs: float | None, offset: int
) -> None:
    """Fields that nobody knows come back as they were; what is shown can be sent again and means the same."""
    sent = {"uniqueKey": unique_key, "url": URL, **extra}
    if handled_secs is not None:
        sent["handledAt"] = datetime.fromtimestamp(handled_secs, timezone(timedelta(hours=offset))).isoformat()
    first = queued_request(json.loads(json.dumps(sent)))
    again = queued_request(first.as_api_object(), path_id=first.id)
    assert again.data == first.data
    assert {key: first.data[key] for key in extra} == json.loads(json.dumps(extra))
    assert (first.handled_at is None) == (handled_secs is None)
