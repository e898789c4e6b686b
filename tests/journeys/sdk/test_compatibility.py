"""
What of both SDKs' ``Actor`` works, found out by calling all of it in real runs, and the page that tells so.

``deploy/COMPATIBILITY.md`` is made by this test: with WRITE_COMPATIBILITY_PAGE=1 it writes the page, else it
fails where the page and what was found differ.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import ACTORS, Greenroom, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[3] / "deploy" / "COMPATIBILITY.md"
INPUT = {"mode": "check", "text": "grüß", "list": [1, 2.5, None]}

Expected = Mapping[str, Any]


@dataclass(frozen=True)
class Ending:
    """A run of one mode, whose end alone can tell whether *method* works, and what must be found of it afterwards."""

    method: str
    mode: str
    run: Expected
    records: Expected = field(default_factory=dict)
    log: str | None = None
    memory_mbytes: int = 256


PYTHON_ENDINGS = (
    Ending("exit", "exit", {"exitCode": 3, "status": "FAILED", "statusMessage": "left with three"}),
    Ending("fail", "fail", {"exitCode": 1, "status": "FAILED", "statusMessage": "it could not be done"}),
    Ending("exit_code", "exit-code", {"exitCode": 5, "status": "FAILED"}),
    Ending("init", "raise", {"exitCode": 91, "status": "FAILED"}, log="nobody catches this"),
    Ending("reboot", "reboot", {"status": "SUCCEEDED", "statusMessage": "started twice"}, {"STARTS": 2}),
    Ending("abort", "abort", {"status": "ABORTED", "statusMessage": "I give up"}, {"HEARD": "aborting"}),
)
JAVASCRIPT_ENDINGS = (
    Ending("exit", "exit", {"exitCode": 3, "status": "FAILED", "statusMessage": "left with three"}),
    Ending("fail", "fail", {"exitCode": 1, "status": "FAILED", "statusMessage": "it could not be done"}),
    Ending("reboot", "reboot", {"status": "SUCCEEDED", "statusMessage": "started twice"}, {"STARTS": 2}),
    Ending("abort", "abort", {"status": "ABORTED"}, {"HEARD": "aborting"}),
    Ending("main", "child", {"status": "SUCCEEDED"}, {"OUTPUT": {"said": "by main"}}, memory_mbytes=128),
)


@dataclass(frozen=True)
class Sdk:
    """One SDK in one version."""

    title: str
    actor: str
    dependencies: Mapping[str, str]
    endings: tuple[Ending, ...]


SDKS = (
    Sdk(
        "Python: `apify` 4.1.0",
        "compat-python",
        {"requirements.txt": "apify==4.1.0\n"},
        PYTHON_ENDINGS,
    ),
    Sdk(
        "JavaScript: `apify` 3.7.2",
        "compat-javascript",
        {"package.json": json.dumps({"type": "module", "private": True, "dependencies": {"apify": "3.7.2"}})},
        JAVASCRIPT_ENDINGS,
    ),
)


@pytest.fixture
async def greenroom(tmp_path: Path) -> AsyncIterator[Greenroom]:
    actors = tmp_path / "actors"
    for sdk in SDKS:
        folder = actors / sdk.actor
        shutil.copytree(ACTORS / sdk.actor, folder)
        for name, text in sdk.dependencies.items():
            (folder / name).write_text(text)
    async with Greenroom(tmp_path / "data", (actors,), {"abort_grace_secs": 10}) as running:
        yield running


async def test_the_page_tells_what_works(greenroom: Greenroom) -> None:
    """Every public method of both SDKs' Actor has been called in a run, and the page says what came of it."""
    found = [await _found(greenroom, sdk) for sdk in SDKS]
    page = _page(dict(zip((sdk.title for sdk in SDKS), found, strict=True)))
    if os.environ.get("WRITE_COMPATIBILITY_PAGE"):
        PAGE.write_text(page)
    broken = {name: what for verdicts in found for name, what in verdicts.items() if what.startswith("fails")}
    assert not broken, "\n\n".join(f"{name}: {what}" for name, what in broken.items())
    assert PAGE.read_text() == page, "deploy/COMPATIBILITY.md is out of date: run this with the variable set"


async def _found(greenroom: Greenroom, sdk: Sdk) -> dict[str, str]:
    """Each public method and what was found of it."""
    started = await _start(greenroom, sdk, INPUT)
    run = await greenroom.ended(started["id"], within_secs=300)
    assert run["status"] == "SUCCEEDED", await greenroom.log_of(run["id"])
    checks = await _record(greenroom, run, "CHECKS")
    verdicts = dict(checks["found"])
    outcomes = await asyncio.gather(*(_ending(greenroom, sdk, ending) for ending in sdk.endings))
    for ending, outcome in zip(sdk.endings, outcomes, strict=True):
        if verdicts.get(ending.method, "works") == "works":
            verdicts[ending.method] = outcome
    unknown = set(checks["public"]) - set(verdicts)
    assert not unknown, f"nobody has tried {sorted(unknown)}"
    return verdicts


async def _ending(greenroom: Greenroom, sdk: Sdk, ending: Ending) -> str:
    given = {"mode": ending.mode, "say": f"by {ending.method}"}
    started = await _start(greenroom, sdk, given, ending.memory_mbytes)
    run = await greenroom.ended(started["id"], within_secs=120)
    log = await greenroom.log_of(run["id"])
    if ending.log is not None and ending.log not in log:
        return f"fails: {ending.log!r} is not in the log\n{log}"
    found: dict[str, Any] = {}

    async def is_as_said() -> bool:
        record = await greenroom.run(run["id"])
        found.update({name: record.get(name) for name in ending.run})
        return found == ending.run

    # The JavaScript SDK sends its last word and does not wait for the answer: it may come after the end.
    try:
        await eventually(is_as_said, what="the record")
    except AssertionError:
        return f"fails: {found} instead of {ending.run}\n{log}"
    for key, expected in ending.records.items():
        value = await _record(greenroom, run, key)
        if value != expected:
            return f"fails: {key} is {value!r}, not {expected!r}\n{log}"
    return "works"


async def _start(greenroom: Greenroom, sdk: Sdk, given: Any, memory_mbytes: int = 256) -> dict[str, Any]:
    path = f"/actors/{sdk.actor}/runs?memory={memory_mbytes}&timeout=300"
    return dict(await greenroom.data_of("POST", path, json=given))


async def _record(greenroom: Greenroom, run: Mapping[str, Any], key: str) -> Any:
    answer = await greenroom.api("GET", f"/key-value-stores/{run['defaultKeyValueStoreId']}/records/{key}")
    if answer.status_code == 404:
        return None
    is_json = answer.headers["content-type"].startswith("application/json")
    return answer.json() if is_json else answer.text


def _page(found: Mapping[str, Mapping[str, str]]) -> str:
    lines = [
        "# What of the official SDKs works",
        "",
        "Made by `tests/journeys/sdk/test_compatibility.py`, which calls every public method of the SDKs' `Actor` in a",
        "real run and checks what it answers and what is stored afterwards. *Works* means that this held; *not yet*",
        "names the error that the call is refused with.",
    ]
    for title, verdicts in found.items():
        lines += ["", f"## {title}", "", "| `Actor.` | |", "|---|---|"]
        lines += [f"| `{name}` | {_shown(verdict)} |" for name, verdict in sorted(verdicts.items())]
    return "\n".join(lines) + "\n"


def _shown(verdict: str) -> str:
    kind, _, rest = verdict.partition(": ")
    if kind == "not yet":
        return f"not yet (error `{rest}`)"
    return f"{kind}: {rest}" if rest else kind
