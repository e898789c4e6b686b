"""What signals carry, as JSON and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.demand import DemandReport, PoolDemand, RunUse
from gateway.core.lifecycle import Readiness
from gateway.core.load import Load
from gateway.core.model import Address
from gateway.core.standby import Generation, PoolKey
from gateway.core.trouble import PoolTrouble
from gateway.state import signals_codec as codec
from gateway.state.ports import Changed, PoolBlocked, PoolFreed, RouteEnded, RunEvent, RunRoute

_TEXT = st.text()
_SECS = st.floats(min_value=0, max_value=1e12, allow_nan=False)
_COUNT = st.integers(min_value=0, max_value=2**53)
_POOL = st.builds(PoolKey, target_id=_TEXT, user_id=_TEXT, scope=_TEXT)
_GENERATION = st.builds(Generation, build_id=_TEXT, memory_mbytes=_COUNT)
_JSON = st.recursive(st.none() | st.booleans() | _COUNT | _TEXT, lambda inner: st.lists(inner, max_size=3))
_ROUTES = st.builds(
    RunRoute,
    run_id=_TEXT,
    actor_id=_TEXT,
    user_id=_TEXT,
    live_view_label=_TEXT,
    readiness=st.sampled_from(Readiness),
    pool=st.none() | _POOL,
    generation=st.none() | _GENERATION,
    address=st.none() | st.builds(Address, host=_TEXT, port=_COUNT),
    start_secs=st.none() | _SECS,
    ready_secs=st.none() | _SECS,
    is_overloaded=st.booleans(),
    is_ending=st.booleans(),
)
_CHANGES = st.one_of(
    _ROUTES,
    st.builds(
        RouteEnded,
        run_id=_TEXT,
        live_view_label=_TEXT,
        error_type=st.none() | _TEXT,
        message=_TEXT,
        exit_code=st.none() | _COUNT,
        log_tail=st.lists(_TEXT, max_size=3).map(tuple),
    ),
    st.builds(
        PoolBlocked,
        pool=_POOL,
        message=_TEXT,
        error_type=_TEXT,
        retry_after_secs=st.none() | _SECS,
        generation=st.none() | _GENERATION,
        facts=st.dictionaries(_TEXT, _JSON, max_size=3),
        log_tail=st.lists(_TEXT, max_size=3).map(tuple),
        is_late=st.booleans(),
    ),
    st.builds(PoolFreed, pool=_POOL),
)
_DEMAND = st.builds(
    PoolDemand,
    in_flight=_COUNT,
    waiting=_COUNT,
    in_flight_secs=_SECS,
    waiting_secs=_SECS,
    arrivals=_COUNT,
    finished=_COUNT,
    refused=_COUNT,
    began_secs=_SECS,
)
_USE = st.builds(RunUse, in_flight=_COUNT, idle_secs=_SECS, viewers=_COUNT, has_refused=st.booleans(), silent=_COUNT)
_REPORT = st.builds(
    DemandReport,
    gateway_id=_TEXT,
    routes_seen=_COUNT,
    at_secs=_SECS,
    pools=st.dictionaries(_POOL, _DEMAND, max_size=3),
    runs=st.dictionaries(_TEXT, _USE, max_size=3),
)
_LOAD = st.builds(
    Load,
    cpu_current=_SECS,
    cpu_avg=_SECS,
    cpu_max=_SECS,
    memory_current=_COUNT,
    memory_avg=_COUNT,
    memory_max=_COUNT,
    is_cpu_overloaded=st.booleans(),
    overloaded_ratio=_SECS,
    net_rx_bytes=st.none() | _COUNT,
    net_tx_bytes=st.none() | _COUNT,
)
_TROUBLE = st.builds(
    PoolTrouble,
    pool=_POOL,
    generation=_GENERATION,
    failed_starts=_COUNT,
    crashes=_COUNT,
    message=_TEXT,
    run_id=_TEXT,
    retry_after_secs=_SECS,
)


def _pairs(*pairs: tuple[str, bytes]) -> bytes:
    """As Redis puts values together."""
    return b"[" + b",".join(b"[" + json.dumps(name).encode() + b"," + value + b"]" for name, value in pairs) + b"]"


@given(_CHANGES)
def test_changes_of_routes(change: Any) -> None:
    """Come out as they went in."""
    assert codec.decode_change(*codec.encode_change(change)) == change


@given(st.lists(_ROUTES, max_size=3))
def test_all_routes(routes: list[RunRoute]) -> None:
    """A JSON array of what each was encoded to is all of them."""
    encoded = b"[" + b",".join(codec.encode_change(route)[1] for route in routes) + b"]"
    assert codec.decode_routes(encoded) == tuple(routes)


@given(st.lists(_REPORT, max_size=3))
def test_reports(reports: list[DemandReport]) -> None:
    """With pools as keys, which JSON does not have."""
    encoded = _pairs(*((report.gateway_id, codec.encode_report(report)) for report in reports))
    assert codec.decode_reports(encoded) == reports


@given(st.dictionaries(_TEXT, _LOAD, max_size=3))
def test_loads(loads: dict[str, Load]) -> None:
    """By run."""
    assert codec.decode_loads(_pairs(*((run_id, codec.encode_load(load)) for run_id, load in loads.items()))) == loads


@given(st.lists(_TROUBLE, max_size=3).map(tuple))
def test_troubles(troubles: tuple[PoolTrouble, ...]) -> None:
    """All at once."""
    assert codec.decode_troubles(codec.encode_troubles(troubles)) == troubles


@given(st.builds(Changed, kind=_TEXT, id=_TEXT))
def test_changed_records(change: Changed) -> None:
    """Kind and id."""
    assert codec.decode_changed(codec.encode_changed(change)) == change


@given(st.builds(RunEvent, run_id=_TEXT, frames=st.lists(_TEXT, max_size=3).map(tuple), ends=st.booleans()))
def test_events(event: RunEvent) -> None:
    """Frames are texts of any kind."""
    assert codec.decode_event(codec.encode_event(event)) == event


@given(st.dictionaries(_TEXT, st.dictionaries(_TEXT, _TEXT, max_size=3), max_size=3))
def test_presence(presence: dict[str, dict[str, str]]) -> None:
    """Who is there, with what he says of himself."""
    encoded = _pairs(*((name, codec.encode_facts(facts)) for name, facts in presence.items()))
    assert codec.decode_presence(encoded) == presence


def test_processes_of_two_versions_understand_each_other() -> None:
    """A field that is new is ignored by those who don't know it, and has its default where it is missing."""
    route = RunRoute(run_id="r", actor_id="a", user_id="u", live_view_label="l", readiness=Readiness.SERVING)
    kind, encoded = codec.encode_change(route)
    fields = json.loads(encoded)
    assert codec.decode_change(kind, json.dumps({**fields, "is_new": True}).encode()) == route
    del fields["is_ending"]
    assert codec.decode_change(kind, json.dumps(fields).encode()) == route


_DECODERS: list[Callable[[bytes], object]] = [
    codec.decode_routes,
    codec.decode_reports,
    codec.decode_loads,
    codec.decode_troubles,
    codec.decode_changed,
    codec.decode_event,
    codec.decode_presence,
    lambda data: codec.decode_change("route", data),
    lambda data: codec.decode_change("ended", data),
    lambda data: codec.decode_change("blocked", data),
    lambda data: codec.decode_change("freed", data),
]


@pytest.mark.parametrize("decode", _DECODERS)
@given(data=st.binary() | _JSON.map(lambda value: json.dumps(value).encode()))
def test_what_is_none_of_ours_is_refused(decode: Callable[[bytes], object], data: bytes) -> None:
    """By ValueError, whatever it is, unless it is an empty list."""
    try:
        decoded = decode(data)
    except ValueError:
        return
    assert not decoded


def test_a_kind_that_is_not_known_is_refused() -> None:
    """A newer Greenroom may tell of things that this one has never heard of."""
    with pytest.raises(ValueError, match="is not a kind"):
        codec.decode_change("renamed", b"{}")
