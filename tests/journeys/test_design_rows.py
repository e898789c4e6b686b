"""
Where the whitepaper, the platform and good sense differ, Greenroom has decided row by row (design, section 9).

Each row is listed here in its words, with the tests that hold it: by name, in the journeys where it shows end to end,
else where it is decided. What belongs to later parts of Greenroom is listed as such, so that no row is forgotten.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.core.standby import StandbyConfig
from gateway.settings import Settings

TESTS = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: the *question*, what was *decided*, the tests that hold it by file, and what is still to come."""

    question: str
    decided: str
    held_by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    later: str = ""


ROWS = {
    "whose_run_serves_a_standby_request": Row(
        question="whose run serves a standby request",
        decided="Default SINGLE_TENANT: the caller's own runs; a public Actor and MULTI_TENANT share the owner's; a "
        "pool is (Actor or task, whose run, token scope, build, memory)",
        held_by={
            "journeys/test_settings.py": (
                "test_single_tenancy_gives_each_caller_runs_of_his_own",
                "test_shared_actors_serve_all_callers_from_the_owners_run",
                "test_memory_is_told_to_the_run_and_a_change_makes_new_runs",
            ),
            "journeys/test_two_users.py": ("test_a_public_actor_in_single_tenancy_never_mixes_its_callers",),
        },
        later="tasks",
    ),
    "credentials_towards_the_actor": Row(
        question="credentials towards the Actor",
        decided="removed (header that matched, X-Apify-Authorization, token in the query); forwardCredentials: true in "
        "single tenancy only",
        held_by={
            "journeys/test_access.py": (
                "test_a_token_opens_the_host_and_stays_behind",
                "test_a_public_actor_answers_anybody_and_sees_its_own_scheme",
                "test_a_dead_token_does_not_reach_a_public_actor_either",
                "test_the_token_of_a_run_opens_the_hosts_of_its_user_and_stays_behind",
            ),
            "journeys/test_settings.py": (
                "test_forward_credentials_lets_the_callers_token_through",
                "test_forward_credentials_is_refused_where_runs_are_shared",
            ),
        },
    ),
    "burst_on_an_empty_pool": Row(
        question="burst on an empty pool",
        decided="a slot is taken on a run that is still starting, so N requests start ⌈N ÷ max⌉ runs, paced, not N; "
        "above desired everywhere starts one ahead",
        held_by={
            "journeys/test_main_job.py": ("test_fifty_callers_at_once_on_a_sleeping_actor",),
            "journeys/test_settings.py": (
                "test_above_the_desired_load_everywhere_one_run_is_started_ahead",
                "test_max_runs_is_never_exceeded_and_everybody_is_served",
            ),
        },
    ),
    "error_types_at_standby_hosts": Row(
        question="error types at standby hosts",
        decided="those of the platform reference where there is one, with run id, reason and what to do; our own for "
        "waiting room, quarantine, quota",
        held_by={
            "journeys/test_trouble.py": (
                "test_an_actor_that_exits_before_it_serves_is_told_and_tried_again",
                "test_an_actor_that_never_listens_is_told_after_the_readiness_timeout",
                "test_a_program_that_does_not_exist_is_told_as_what_cannot_be_started",
                "test_an_actor_that_drops_the_connection_is_a_bad_gateway",
                "test_a_full_waiting_room_refuses_at_once_and_serves_who_waits",
                "test_who_waits_too_long_is_told_to_come_again",
            ),
            "journeys/test_settings.py": ("test_standby_switched_off_says_so_and_drains",),
        },
        later="quarantine and quota",
    ),
    "deadlines": Row(
        question="deadlines",
        decided="120 s to pick or start a run, 300 s to the first byte, then none unless the Actor sets a stream idle "
        "limit; all settings, all told in the error",
        held_by={
            "journeys/test_trouble.py": (
                "test_no_first_byte_in_time_is_a_timeout",
                "test_who_waits_too_long_is_told_to_come_again",
                "test_a_stream_is_cut_after_its_own_idle_limit_alone",
            ),
            "journeys/test_settings.py": ("test_pick_timeout_secs_bounds_the_wait_for_a_run",),
            "journeys/test_design_rows.py": ("test_the_deadlines_are_the_platforms_unless_set",),
        },
    ),
    "new_build_of_the_standby_tag": Row(
        question="new build of the standby tag",
        decided="runs of the old build are retired: nothing new, drained, stopped; the new one serves first, so no gap",
        held_by={
            "journeys/test_new_build.py": (
                "test_a_pushed_build_takes_over_under_load_without_a_single_failure",
                "test_a_long_answer_of_the_old_build_is_finished",
                "test_an_open_socket_of_the_old_build_goes_on_until_it_is_closed",
                "test_a_broken_new_build_leaves_the_old_one_serving",
            ),
        },
    ),
    "end_of_an_idle_run": Row(
        question="end of an idle run (wind down)",
        decided="drain, then aborting + persistState, 15 s, SIGTERM, 15 s, SIGKILL; SIGTERM at once where no events "
        "socket is connected; status SUCCEEDED with the reason in the log",
        held_by={
            "journeys/test_main_job.py": ("test_a_sleeping_actor_answers_serves_on_and_is_wound_down",),
            "journeys/test_settings.py": ("test_an_idle_run_ends_after_the_idle_timeout_and_not_before",),
            "journeys/test_proxying.py": (
                "test_a_websocket_wakes_an_actor_and_keeps_its_run_for_as_long_as_it_is_open",
                "test_a_stream_keeps_its_run_too",
            ),
            "journeys/test_trouble.py": ("test_an_idle_run_that_hears_events_is_asked_told_and_killed_in_turn",),
        },
    ),
    "crash_of_a_run": Row(
        question="crash of a run",
        decided="restarted only with restartOnError (3 in 60 s, then FAILED); a standby run is never restarted, the "
        "next request starts another",
        held_by={
            "journeys/test_trouble.py": (
                "test_a_standby_run_that_crashes_is_not_restarted_and_the_next_request_starts_another",
            ),
            "journeys/test_restarts.py": (
                "test_failures_are_forgiven_three_times_a_minute",
                "test_a_declared_failure_is_final",
                "test_a_reboot_starts_the_program_again",
            ),
        },
    ),
    "a_runs_cpu_limit": Row(
        question="a run's CPU limit",
        decided="process launcher: min(cores, max(1, memory ÷ 4096)); the same number in APIFY_DEDICATED_CPUS",
        held_by={
            "journeys/test_run_environment.py": (
                "test_a_standby_run_has_exactly_the_contract",
                "test_a_batch_run_has_its_time_limit_and_options_too",
            ),
        },
        later="containers, and the rule by load",
    ),
    "min_runs_liveness_affinity": Row(
        question="minRuns, liveness, affinity",
        decided="offered: warm minimum",
        held_by={
            "journeys/test_settings.py": ("test_min_runs_are_warm_without_any_request_also_right_after_the_start",),
        },
        later="liveness probe, affinity",
    ),
    "cors_preflight_without_a_token": Row(
        question="CORS preflight without a token",
        decided="answered or let through; it never wakes an Actor",
        held_by={
            "journeys/test_access.py": (
                "test_a_preflight_without_a_token_is_answered_and_starts_nothing",
                "test_a_preflight_to_a_warm_public_actor_is_let_through",
                "test_an_options_request_that_is_no_preflight_needs_a_token",
            ),
        },
    ),
    "headers_from_outside": Row(
        question="headers from outside",
        decided="the readiness probe's and X-Actor-Request-ID are dropped; each forwarded request gets a fresh "
        "X-Actor-Request-ID, which is the request id in logs; Host is kept; health checkers can be excluded "
        "from waking",
        held_by={
            "journeys/test_proxying.py": (
                "test_what_only_greenroom_may_say_is_said_by_greenroom",
                "test_the_request_id_of_an_actor_is_the_one_in_the_log",
            ),
            "journeys/test_unused.py": (
                "test_an_excluded_health_checker_keeps_nobody_awake",
                "test_a_polling_health_checker_keeps_an_actor_awake",
            ),
        },
    ),
    "cpu_info_and_system_info": Row(
        question="cpuInfo and systemInfo",
        decided="both are sent, from one measurement, which is also what the autoscaler reads",
        held_by={
            "journeys/test_load.py": (
                "test_a_busy_run_hears_how_busy_it_is",
                "test_a_standby_run_hears_it_once_a_second",
                "test_the_load_is_known_again_after_kill_9",
            ),
            "api/test_api_runs.py": ("test_a_living_run_shows_its_load",),
        },
        later="the autoscaler's rule by load, which reads the same",
    ),
    "metamorphs_input_key": Row(
        question="metamorph's input key",
        decided="INPUT-2, INPUT-3, … as in the whitepaper, always told by ACTOR_INPUT_KEY",
        held_by={"journeys/test_run_environment.py": ("test_a_standby_run_has_exactly_the_contract",)},
        later="metamorph; here every run's key is INPUT, and told",
    ),
    "charge_with_a_price_given_per_call": Row(
        question="charge with a price given per call; a called Actor's charges come from its caller's allowance",
        decided="as the whitepaper, where the Actor has no price list; the price list wins where it has one",
        later="with charging",
    ),
    "max_total_charge_usd_not_given": Row(
        question="maxTotalChargeUsd not given",
        decided="unlimited as on the platform; default_max_total_charge_usd is a setting",
        held_by={"journeys/test_run_environment.py": ("test_a_batch_run_has_its_time_limit_and_options_too",)},
        later="the setting, with charging; here a limit is told where one was given, and none where not",
    ),
    "incompatible_output_schema_on_metamorph": Row(
        question="incompatible output schema on metamorph",
        decided="refused when both declare one",
        later="with metamorph",
    ),
    "hosts_without_wildcard_dns": Row(
        question="hosts without wildcard DNS",
        decided="/standby/<username>--<actor>/… and /live/<label>/… on the API host, prefix stripped, same rules; "
        "Content-Security-Policy: sandbox and no cookies in either direction; the Actor's id as a host label works "
        "too, letter case ignored",
        held_by={
            "journeys/test_access.py": (
                "test_the_path_form_serves_programs_without_wildcard_dns",
                "test_the_live_view_of_a_standby_run",
                "test_every_form_of_a_host_means_the_same_run",
                "test_at_its_host_an_actor_has_its_cookies_and_no_sandbox",
            ),
        },
    ),
    "no_right": Row(
        question="no right",
        decided="no or a bad token at an existing standby host: 401; a good token without the right, a private Actor, "
        "an unknown host: the same 404 (record-not-found)",
        held_by={
            "journeys/test_access.py": (
                "test_without_a_good_token_an_existing_host_says_401_and_starts_nothing",
                "test_who_has_no_right_gets_the_404_of_a_host_that_does_not_exist",
                "test_an_expired_token_is_no_token",
            ),
            "journeys/test_two_users.py": (
                "test_a_token_neither_reaches_nor_wakes_the_others_private_actor",
                "test_nothing_of_the_other_is_listed_or_found_in_the_api",
            ),
        },
    ),
    "run_start_repeated_after_a_5xx": Row(
        question="run start and other creates that clients repeat after a 5xx",
        decided="Idempotency-Key accepted; no 5xx after an effect",
        held_by={
            "contracts/test_repeated_pushes.py": ("test_a_push_repeated_after_a_crash",),
            "api/test_api_runs.py": (
                "test_idempotency",
                "test_idempotency_under_a_race",
                "test_bad_idempotency_keys",
            ),
        },
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_row_is_held_by_tests_that_exist(name: str) -> None:
    """Each row names its tests, or what it waits for; each named test is there."""
    row = ROWS[name]
    assert row.held_by or row.later, f"'{row.question}' has neither a test nor a reason for having none"
    for file, tests in row.held_by.items():
        missing = set(tests) - names_in(file)
        assert not missing, f"'{row.question}' is to be held by {sorted(missing)}, which {file} does not have"


def test_the_deadlines_are_the_platforms_unless_set() -> None:
    """120 s to pick or start a run, 300 s to the first byte, none for a stream; a grace of 15 s at the end."""
    settings = Settings()
    assert (settings.pick_timeout_secs, settings.first_byte_timeout_secs) == (120, 300)
    assert (settings.readiness_timeout_secs, settings.wind_down_grace_secs) == (120, 15)
    standby = StandbyConfig()
    assert (standby.pick_timeout_secs, standby.first_byte_timeout_secs, standby.stream_idle_timeout_secs) == (None,) * 3


def names_in(file: str) -> set[str]:
    """The names of a file's tests."""
    tree = ast.parse((TESTS / file).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, functions) and node.name.startswith("test_")}
