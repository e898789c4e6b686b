"""``greenroom explain``: how many runs an Actor has and why, through the API of a running Greenroom."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from gateway.commands.api_verbs import Api, rough
from gateway.core.times import parse_iso
from gateway.refusals import USAGE, Refused

MOST_DECISIONS = 1000
_EVERY_SECS = 1.0
_DAY_SECS = 86_400

_NO_POOL = (
    "greenroom: the runs of this Actor that serve your requests belong to its owner, who alone can have them explained."
)
_NO_DECISION = (
    "  No decisions: it has had no run, and nobody has called it, for as long as they are kept (setting: "
    "decision_keep_days)."
)


def explain_actor(api: Api, actor: str, *, limit: int, follow: bool, as_json: bool) -> int:
    """
    Print each pool of *actor* that the caller has, with its last *limit* decisions, the newest last; with *follow*
    also those that come, until interrupted. *as_json*: one document; with *follow* one in each line.

    Raises Refused.
    """
    if not 1 <= limit <= MOST_DECISIONS:
        raise Refused(f"--limit {limit}: a number from 1 to {MOST_DECISIONS} is expected.", exit_code=USAGE)
    # "jane/hello" is how other verbs print an Actor, "jane~hello" how the API takes it.
    path = f"greenroom/actors/{quote(actor.replace('/', '~'), safe='~')}/pools"
    pools = api.call("GET", path)["items"]
    shown = {pool["id"]: _decisions(api, pool["id"], limit) for pool in pools}
    if as_json:
        whole = {"pools": [{**pool, "lastDecisions": shown[pool["id"]]} for pool in pools]}
        print(json.dumps(whole, indent=None if follow else 2), flush=True)
    else:
        if not pools:
            print(_NO_POOL, file=sys.stderr)
        for number, pool in enumerate(pools):
            _print_lines([*([""] if number else []), *lines_of_pool(pool, shown[pool["id"]], datetime.now(UTC))])
    if follow:
        last = {pool_id: decisions[-1]["id"] if decisions else None for pool_id, decisions in shown.items()}
        for decision in _to_come(api, path, last):
            if as_json:
                print(json.dumps(decision), flush=True)
            else:
                _print_lines(lines_of_decision(decision, datetime.now(UTC)))
    return 0


def _decisions(api: Api, pool_id: str, limit: int) -> list[dict[str, Any]]:
    """The last *limit*, the newest last."""
    page = {"desc": "1", "limit": str(limit)}
    found = api.call("GET", f"greenroom/pools/{quote(pool_id, safe='')}/decisions", params=page)["items"]
    return list(reversed(found))


def _to_come(api: Api, path: str, last: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    """For ever: each decision that is made from now on. *last* is the one that was seen last, of each pool."""
    while True:
        time.sleep(_EVERY_SECS)
        for pool in api.call("GET", path)["items"]:
            newest, seen = pool["lastDecision"], last.get(pool["id"])
            if newest is None or newest["id"] == seen:
                continue
            found = _decisions(api, pool["id"], MOST_DECISIONS)
            at = next((at for at, decision in enumerate(found) if decision["id"] == seen), -1)
            last[pool["id"]] = found[-1]["id"]
            yield from found[at + 1 :]


def _print_lines(lines: Sequence[str]) -> None:
    print("\n".join(lines), flush=True)


def lines_of_pool(pool: dict[str, Any], decisions: Sequence[dict[str, Any]], now: datetime) -> list[str]:
    """A pool as a person reads it: in one sentence, then its runs, then what was decided, the newest last."""
    lines = [f"{pool['summary']}  (pool {pool['id']})", ""]
    if pool["runs"]:
        lines.append(f"  {'RUN':<17}  {'STATE':<8}  {'IN FLIGHT':>9}  {'UNUSED FOR':>10}  {'CPU':>5}  {'MEMORY':>7}")
    lines += [_line_of_run(run) for run in pool["runs"]]
    if pool["runs"]:
        lines.append("")
    if not decisions:
        return [*lines, _NO_DECISION]
    hidden = pool["decisions"] - len(decisions)
    if hidden > 0:
        lines.append(f"  {hidden} earlier decisions: --limit {min(pool['decisions'], MOST_DECISIONS)} shows them.")
    for decision in decisions:
        lines += lines_of_decision(decision, now)
    return lines


def _line_of_run(run: dict[str, Any]) -> str:
    unused = rough(run["idleSecs"]) if run["idleSecs"] is not None else "-"
    cpu = f"{run['cpuPercent']:.0f}%" if run["cpuPercent"] is not None else "-"
    memory = f"{run['memoryBytes'] / 2**20:.0f} MB" if run["memoryBytes"] is not None else "-"
    notes = [
        note for key, note in (("isOutdated", "older build or memory"), ("isOverloaded", "overloaded")) if run[key]
    ]
    line = f"  {run['id']:<17}  {run['readiness']:<8}  {run['inFlight']:>9}  {unused:>10}  {cpu:>5}  {memory:>7}"
    return f"{line}  {', '.join(notes)}".rstrip()


def lines_of_decision(decision: dict[str, Any], now: datetime) -> list[str]:
    """When, how many runs were wanted ← how many there were, why, and what was done for it."""
    at = parse_iso(decision["at"])
    ago_secs = max(0.0, (now - at).total_seconds())
    clock = f"{local(at):%H:%M:%S}" if ago_secs < _DAY_SECS else f"{local(at):%b %d %H:%M:%S}"
    when = f"  {clock}  {rough(ago_secs):>4} ago  {decision['wantedRuns']} ← {decision['presentRuns']}  "
    start = decision["decision"].get("start", 0)
    said = [*decision["reasons"], *([f"starts {start}"] if start else [])] or ["no reason was noted"]
    return [when + said[0], *(" " * len(when) + line for line in said[1:])]


def local(at: datetime) -> datetime:
    """By the clock of who reads it."""
    return at.astimezone()
