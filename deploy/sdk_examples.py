"""
The examples on the official SDKs, as the quickstart wakes and checks them.

Their packages are installed when they are first called, so the first call of each may take a minute.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from calls import Answer, Api, Failed, call

EXAMPLES = Path(__file__).resolve().parent / "examples"
STANDBY = ("sdk-python", "sdk-javascript")
PREPARE_SECS = 600.0
LOAD_SECS = 30.0
RUN_SECS = 300.0
OLDEST_NODE = 18


def node_problem() -> str | None:
    """What keeps Actors in JavaScript from running on this machine, in words."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return "Node.js and npm were not found"
    version = subprocess.run([node, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    major = version.removeprefix("v").partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST_NODE:
        return f"Node.js {OLDEST_NODE} or newer is needed, and {node} is {version or 'broken'}"
    return None


def servable() -> tuple[list[Path], str | None]:
    """The examples that this machine can run, and a line that tells what is left out, if anything is."""
    folders = sorted(folder for folder in EXAMPLES.iterdir() if (folder / ".actor").is_dir())
    problem = node_problem()
    if problem is None:
        return folders, None
    left_out = [folder.name for folder in folders if (folder / "package.json").exists()]
    line = f"Left out: {', '.join(left_out)}, since {problem}."
    return [folder for folder in folders if folder.name not in left_out], line


def wake(port: int, name: str, path: str) -> Answer:
    """The answer of a standby example, however long its packages take, up to ten minutes. Raises Failed."""
    until = time.monotonic() + PREPARE_SECS
    while True:
        answer = call(port, f"local--{name}.localhost:{port}", path)
        if answer.status == 200:
            return answer
        # A wake that takes longer than Greenroom holds a request is answered 503; the installation goes on.
        if answer.status != 503 or time.monotonic() > until:
            raise Failed(f"{name} was expected to answer {path}, not: {answer.status} {answer.body[:1000]}")
        time.sleep(1)


def show(port: int, token: str | None, say: Callable[[str], None]) -> None:
    """Wake the standby examples one after the other, telling how the preparation goes and what came of it."""
    servable_names = {folder.name for folder in servable()[0]}
    say("\nPreparing the examples on the SDKs; the first time their packages are installed ...")
    for name in STANDBY:
        if name not in servable_names:
            continue
        with _telling_progress(port, token, name, say):
            try:
                wake(port, name, "/figures")
            except (Failed, OSError, http.client.HTTPException) as error:
                say(f"  {name} did not start: {error}")
                continue
        say(f"  {name} is awake: http://local--{name}.localhost:{port}/")


@contextlib.contextmanager
def _telling_progress(port: int, token: str | None, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile tell what the run that is being started logs, as far as a token is at hand to read it."""
    is_awake = threading.Event()
    teller = threading.Thread(target=_tell_log, args=(Api(port, token or ""), name, say, is_awake), daemon=True)
    if token is not None:
        teller.start()
    try:
        yield
    finally:
        is_awake.set()
        if token is not None:
            teller.join(5)


def _tell_log(api: Api, name: str, say: Callable[[str], None], is_awake: threading.Event) -> None:
    told = 0
    while not is_awake.wait(0.5):
        with contextlib.suppress(Failed, OSError, http.client.HTTPException, ValueError):
            run = api.value(f"/actors/local~{name}/runs/last")
            lines = api.call(f"/logs/{run['id']}").body.splitlines()
            for line in lines[told:]:
                # Each begins with its time and who says it; of what installers say, names of packages are the progress.
                text = line.partition("ACTOR: ")[2]
                if text.startswith(("Collecting ", "Making ", "Installing ", "added ", "The ")):
                    say(f"  {name}: {text.partition(' (from')[0][:90]}")
            told = max(told, len(lines))


def check(api: Api) -> None:
    """What ``--check`` looks at, all examples side by side. Raises Failed."""
    names = [folder.name for folder in servable()[0]]
    with ThreadPoolExecutor() as pool:
        checks = [pool.submit(check_standby, api, name) for name in STANDBY if name in names]
        checks.append(pool.submit(check_basics, api))
        for done in checks:
            done.result()


def check_standby(api: Api, name: str) -> None:
    """It greets, keeps the greeting where the API finds it, and hears its own load."""
    told = json.loads(wake(api.port, name, "/greet?name=Ann").body)
    _expect(told.get("text"), "Hello, Ann!", f"the greeting of {name}")
    until = time.monotonic() + LOAD_SECS
    while "cpuRatio" not in (figures := json.loads(wake(api.port, name, "/figures").body)):
        if time.monotonic() > until:
            raise Failed(f"{name} was expected to hear of its load within {LOAD_SECS:.0f} s")
        time.sleep(0.2)
    run = api.value(f"/actor-runs/{figures['runId']}")
    _expect(run["statusMessage"], "Greeted 1, at last Ann", f"the status message of {name}")
    items = api.value(f"/datasets/{run['defaultDatasetId']}/items")
    _expect([item["text"] for item in items], ["Hello, Ann!"], f"the dataset of {name}")
    output = api.value(f"/key-value-stores/{run['defaultKeyValueStoreId']}/records/OUTPUT")
    _expect(output["greeted"], 1, f"the output of {name}")
    page = call(api.port, f"local--{name}.localhost:{api.port}", "/")
    if "<title>Greetings from a run</title>" not in page.body:
        raise Failed(f"{name} was expected to show its page, not: {page.status} {page.body[:500]}")


def check_basics(api: Api) -> None:
    """A batch run by the API: its input is checked, it succeeds or fails as it is told, and its results are there."""
    wrong = api.call("/actors/local~basics/runs", {"pages": 0})
    if wrong.status != 400 or json.loads(wrong.body)["error"]["type"] != "invalid-input":
        raise Failed(f"0 pages were expected to be refused as invalid-input, not: {wrong.status} {wrong.body[:500]}")
    run = _ended(api, {"pages": 4})
    _expect((run["status"], run["exitCode"], run["statusMessage"]), ("SUCCEEDED", 0, "Done: 4 pages"), "basics' end")
    items = api.value(f"/datasets/{run['defaultDatasetId']}/items")
    _expect(sorted(item["number"] for item in items), [1, 2, 3, 4], "the dataset of basics")
    output = api.value(f"/key-value-stores/{run['defaultKeyValueStoreId']}/records/OUTPUT")
    _expect(output, {"pages": 4, "sum": 10}, "the output of basics")
    run = _ended(api, {"ending": "fail"})
    _expect((run["status"], run["exitCode"]), ("FAILED", 1), "the end of basics, told to fail")


def _ended(api: Api, given: Any) -> Any:
    run = api.value("/actors/local~basics/runs", given)
    until = time.monotonic() + RUN_SECS
    while run["status"] in ("READY", "RUNNING"):
        if time.monotonic() > until:
            raise Failed(f"run {run['id']} of basics was expected to end within {RUN_SECS:.0f} s")
        run = api.value(f"/actor-runs/{run['id']}?waitForFinish=30")
    return run


def _expect(found: Any, expected: Any, what: str) -> None:
    if found != expected:
        raise Failed(f"{what} was expected to be {expected!r}, not {found!r}")
