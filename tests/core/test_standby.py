"""What an ``actorStandby`` object means: each key's good and bad values, what wins, and which pool serves whom."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InvalidConfig
from gateway.core.lifecycle import RunStatus
from gateway.core.model import MEMORY_STEPS_MBYTES, Actor, Build, Origin, TaggedBuild
from gateway.core.standby import (
    Generation,
    PoolKey,
    StandbyConfig,
    Tenancy,
    as_api_object,
    effective,
    merge,
    parse_standby,
    standby_target,
)

AT = datetime(2026, 1, 2, tzinfo=UTC)
ACTOR = Actor(
    id="Actor000000000001",
    user_id="owner",
    name="hello",
    created_at=AT,
    modified_at=AT,
    standby_from_file={"isEnabled": True},
    tagged_builds={
        "latest": TaggedBuild(build_id="new", build_number="0.1.2", finished_at=AT),
        "beta": TaggedBuild(build_id="old", build_number="0.1.1", finished_at=AT),
    },
)

DEFAULTS: dict[str, Any] = {
    "isEnabled": False,
    "desiredRequestsPerActorRun": 3,
    "maxRequestsPerActorRun": 4,
    "idleTimeoutSecs": 300,
    "build": "latest",
    "memoryMbytes": 1024,
    "shouldPassActorInput": False,
    "disableStandbyFieldsOverride": False,
    "tenancy": "SINGLE_TENANT",
    "public": False,
    "ownerOnly": False,
    "minRuns": 0,
    "maxRuns": None,
    "freezeAfterSecs": None,
    "forwardCredentials": False,
    "pickTimeoutSecs": None,
    "firstByteTimeoutSecs": None,
    "streamIdleTimeoutSecs": None,
    "streamSilenceTimeoutSecs": None,
    "idleIgnoredUserAgents": [],
    "idleIgnoredPaths": [],
    "freezeWithOpenSockets": False,
    "livenessPath": None,
    "livenessEverySecs": 10,
}

BOOLEANS = [key for key, default in DEFAULTS.items() if isinstance(default, bool)]
OPTIONAL_SECS = [
    "freezeAfterSecs",
    "pickTimeoutSecs",
    "firstByteTimeoutSecs",
    "streamIdleTimeoutSecs",
    "streamSilenceTimeoutSecs",
]
LISTS = ["idleIgnoredUserAgents", "idleIgnoredPaths"]

GOOD = [
    *[(key, value) for key in BOOLEANS for value in (True, False)],
    *[("desiredRequestsPerActorRun", value) for value in (1, 3, 4)],
    *[("maxRequestsPerActorRun", value) for value in (3, 10_000)],
    *[("idleTimeoutSecs", value) for value in (1, 1.5, 300, 86_400)],
    *[("build", value) for value in ("latest", "0.1.7")],
    *[("memoryMbytes", value) for value in MEMORY_STEPS_MBYTES],
    *[("tenancy", value) for value in ("SINGLE_TENANT", "MULTI_TENANT")],
    *[("minRuns", value) for value in (0, 1, 50)],
    *[("maxRuns", value) for value in (None, 1, 50)],
    *[(key, value) for key in OPTIONAL_SECS for value in (None, 0.1, 5, 300)],
    *[("idleIgnoredUserAgents", value) for value in ([], ["kube-probe/"], ["Mozilla/5.0 (Watcher)", "x" * 200])],
    *[("idleIgnoredPaths", value) for value in ([], ["/"], ["/health", "/a%20b;c=1/"], [f"/{i}" for i in range(10)])],
    *[("livenessPath", value) for value in (None, "/", "/health?deep=1", "/" + "x" * 199)],
    *[("livenessEverySecs", value) for value in (1, 2.5, 10, 3600)],
]

BAD = [
    *[(key, value) for key in BOOLEANS for value in (None, 0, 1, "true", [])],
    *[("desiredRequestsPerActorRun", value) for value in (0, -1, 1.0, 2.5, "3", True, None)],
    *[("maxRequestsPerActorRun", value) for value in (0, 2, 4.0, "4", True, None)],
    *[("idleTimeoutSecs", value) for value in (0, 0.9, -5, "300", True, None, math.inf, math.nan, 10**400)],
    *[("build", value) for value in ("", None, 1, [])],
    *[("memoryMbytes", value) for value in (0, 64, 127, 1000, 65_536, 1024.0, "1024", True, None)],
    *[("tenancy", value) for value in ("", "multi_tenant", "BOTH", None, 1)],
    *[("minRuns", value) for value in (-1, 0.5, "1", True, None)],
    *[("maxRuns", value) for value in (0, -1, 1.0, "1", True)],
    *[(key, value) for key in OPTIONAL_SECS for value in (0, -1, "5", True, math.inf, math.nan, 10**400)],
    *[(key, value) for key in LISTS for value in (None, "/health", {}, [1], [""], ["/x"] * 11, ["/" + "x" * 200])],
    *[("idleIgnoredUserAgents", [value]) for value in (" probe", "probe ", "a\nb", "Prüfer")],
    *[("idleIgnoredPaths", [value]) for value in ("health", "/a?b", "/a#b", "/a b", "/ä", "//host/\n")],
    *[("livenessPath", value) for value in ("", "health", "/a b", "/a#b", "/ä", "/a\r\nX: y", "/" + "x" * 200, 1, [])],
    *[("livenessEverySecs", value) for value in (0, 0.9, -1, 3601, "5", True, None, math.inf, math.nan)],
    *[("idleTimeout", 5), ("isenabled", True), ("", 1)],
]


def row(case: tuple[str, Any]) -> Any:
    return pytest.param(*case, id=f"{case[0]}={repr(case[1])[:20]}")


def test_nothing_given_means_the_defaults() -> None:
    """The platform's defaults, and Greenroom's own additions switched off."""
    assert parse_standby(None) == parse_standby({}) == StandbyConfig()
    assert as_api_object({}) == DEFAULTS


@pytest.mark.parametrize(("key", "value"), [row(case) for case in GOOD])
def test_each_key_takes_its_good_values(key: str, value: Any) -> None:
    """A good value is taken, changes nothing else, and is shown again as it was given."""
    assert as_api_object({key: value}) == {**DEFAULTS, key: value}


@pytest.mark.parametrize(("key", "value"), [row(case) for case in BAD])
def test_each_key_refuses_its_bad_values(key: str, value: Any) -> None:
    """A bad value or an unknown key is a 400 that names the key."""
    with pytest.raises(InvalidConfig) as refused:
        parse_standby({key: value})
    assert f"actorStandby.{key}" in refused.value.message
    assert refused.value.data == {"field": f"actorStandby.{key}"}
    assert (refused.value.http_status, refused.value.error_type) == (400, "invalid-request")


@pytest.mark.parametrize(
    ("given_", "named"),
    [
        pytest.param(
            {"desiredRequestsPerActorRun": 5, "maxRequestsPerActorRun": 4},
            "Max requests must be greater than or equal to desired requests.",
            id="desired above max, in the platform's own words",
        ),
        pytest.param({"minRuns": 3, "maxRuns": 2}, "actorStandby.maxRuns", id="minRuns above maxRuns"),
        pytest.param(
            {"forwardCredentials": True, "public": True}, "forwardCredentials", id="credentials to a public Actor"
        ),
        pytest.param(
            {"forwardCredentials": True, "tenancy": "MULTI_TENANT"},
            "forwardCredentials",
            id="credentials to a shared run",
        ),
    ],
)
def test_contradictions_are_refused(given_: dict[str, Any], named: str) -> None:
    """Settings that are good each by itself but not together."""
    with pytest.raises(InvalidConfig, match=named.replace(".", r"\.")):
        parse_standby(given_)


@pytest.mark.parametrize("key", ["isConsoleAuthEnabled", "isTokenlessEnabled"])
def test_staff_only_keys_are_dropped_silently(key: str) -> None:
    """Clients that send back what the platform gave them are not refused, and nothing comes of it."""
    assert merge(None, {key: True}) == {}
    assert parse_standby({key: True}) == StandbyConfig()
    assert as_api_object({key: True}) == DEFAULTS


@pytest.mark.parametrize(
    ("stored", "given_", "expected"),
    [
        pytest.param(None, None, None, id="never set"),
        pytest.param(None, {}, {}, id="an empty object is set"),
        pytest.param({"minRuns": 1}, None, {"minRuns": 1}, id="nothing given keeps what is stored"),
        pytest.param({"minRuns": 1}, {}, {"minRuns": 1}, id="an empty object keeps what is stored"),
        pytest.param(
            {"minRuns": 1, "maxRuns": 2},
            {"maxRuns": 5},
            {"minRuns": 1, "maxRuns": 5},
            id="what is given wins key by key",
        ),
        pytest.param({"maxRuns": 2}, {"maxRuns": None}, {"maxRuns": None}, id="null is a value too"),
        pytest.param({"public": True}, {"public": False}, {"public": False}, id="false is a value too"),
    ],
)
def test_merge(stored: dict[str, Any] | None, given_: dict[str, Any] | None, expected: dict[str, Any] | None) -> None:
    """The given object over the stored one, key by key; neither is changed."""
    before = (None if stored is None else dict(stored), None if given_ is None else dict(given_))
    assert merge(stored, given_) == expected
    assert (stored, given_) == before


def test_the_api_wins_over_the_file() -> None:
    """Key by key, also when the file is pushed again later; what neither set comes from the defaults."""
    actor = replace(
        ACTOR, standby_from_file={"isEnabled": True, "minRuns": 1}, standby_from_api={"minRuns": 2, "maxRuns": 4}
    )
    config = parse_standby(effective(actor))
    assert (config.is_enabled, config.min_runs, config.max_runs, config.max_requests_per_run) == (True, 2, 4, 4)
    assert effective(replace(actor, standby_from_file=None, standby_from_api=None)) is None
    assert as_api_object(None) is None


configs = st.fixed_dictionaries(
    {},
    optional={
        "isEnabled": st.booleans(),
        "desiredRequestsPerActorRun": st.integers(1, 3),
        "maxRequestsPerActorRun": st.integers(3, 10**9),
        "idleTimeoutSecs": st.floats(1, 1e9) | st.integers(1, 10**9),
        "build": st.text(min_size=1),
        "memoryMbytes": st.sampled_from(MEMORY_STEPS_MBYTES),
        "tenancy": st.sampled_from(["SINGLE_TENANT", "MULTI_TENANT"]),
        "public": st.booleans(),
        "minRuns": st.integers(0, 9),
        "maxRuns": st.none() | st.integers(9, 10**6),
        "freezeAfterSecs": st.none() | st.floats(0.001, 1e9),
        "isTokenlessEnabled": st.booleans(),
    },
)


@given(configs)
def test_what_is_shown_means_the_same(config: dict[str, Any]) -> None:
    """The whole object as the API shows it can be sent back and means what the partial one meant."""
    shown = as_api_object(config)
    assert shown is not None
    assert shown.keys() == DEFAULTS.keys()
    assert parse_standby(shown) == parse_standby(config)
    assert as_api_object(shown) == shown


ids_ = st.text("abcXYZ019", min_size=1, max_size=17)


@given(target=ids_, user=ids_, scope=st.text(min_size=0, max_size=8))
def test_a_pools_name_can_be_read_back(target: str, user: str, scope: str) -> None:
    """Also where the scope has dots in it; a pool without a scope has a name of two parts."""
    key = PoolKey(target_id=target, user_id=user, scope=scope)
    assert PoolKey.parse(key.id) == key
    assert scope or key.id == f"{target}.{user}"


@pytest.mark.parametrize(
    ("settings", "user_id", "expected"),
    [
        pytest.param({}, "caller", "caller", id="single tenancy: the caller's own"),
        pytest.param({}, "owner", "owner", id="single tenancy: the owner is a caller like another"),
        pytest.param({"tenancy": "MULTI_TENANT"}, "caller", "owner", id="multi tenancy: the owner's, shared"),
        pytest.param({"public": True}, None, "owner", id="public: the owner's, for nobody in particular"),
        pytest.param({"public": True}, "caller", "owner", id="public: a token changes nothing"),
    ],
)
def test_whose_run_serves(settings: dict[str, Any], user_id: str | None, expected: str) -> None:
    """Tenancy decides whose pool it is; shared pools have no scope."""
    target = standby_target(replace(ACTOR, standby_from_api=settings), "local")
    pool = target.pool_for(user_id, scope="narrow")
    assert (pool.target_id, pool.user_id) == (ACTOR.id, expected)
    assert pool.scope == ("" if target.config.is_shared else "narrow")


@pytest.mark.parametrize(
    ("is_public_actor", "owner_only", "user_id", "expected"),
    [
        pytest.param(False, False, "owner", True, id="private: the owner may"),
        pytest.param(False, False, "other", False, id="private: nobody else may"),
        pytest.param(True, False, "other", True, id="public Actor: everybody with a token may"),
        pytest.param(True, True, "other", False, id="ownerOnly: nobody else, though the Actor is public"),
        pytest.param(True, True, "owner", True, id="ownerOnly: the owner may"),
    ],
)
def test_who_may_call(is_public_actor: bool, owner_only: bool, user_id: str, expected: bool) -> None:
    """Others than the owner may call public Actors that are not kept to their owner."""
    actor = replace(ACTOR, is_public=is_public_actor, standby_from_api={"ownerOnly": owner_only})
    assert standby_target(actor, "local").may_run(user_id) is expected


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        pytest.param("latest", "new", id="by tag"),
        pytest.param("beta", "old", id="by another tag"),
        pytest.param("0.1.1", None, id="a number is looked up by who has the builds"),
        pytest.param("gamma", None, id="no such tag"),
    ],
)
def test_which_build_serves(build: str, expected: str | None) -> None:
    """The tag in the settings names the generation; none where it points to no build."""
    target = standby_target(replace(ACTOR, standby_from_api={"build": build, "memoryMbytes": 512}), "local")
    assert target.generation == (Generation(build_id=expected, memory_mbytes=512) if expected else None)
    assert target.config.tenancy is Tenancy.SINGLE_TENANT


def test_a_build_may_be_named_by_its_number() -> None:
    """Where no tag has the name in the settings, the build of that number counts, if there is one."""
    actor = replace(ACTOR, standby_from_api={"build": "0.1.6"})
    assert standby_target(actor, "local").generation is None
    numbered = Build(
        id="b6",
        actor_id=actor.id,
        user_id=actor.user_id,
        version_number="0.1",
        build_number="0.1.6",
        status=RunStatus.SUCCEEDED,
        started_at=actor.created_at,
        origin=Origin.CLI,
    )
    assert standby_target(actor, "local", numbered).generation == Generation(build_id="b6", memory_mbytes=1024)
