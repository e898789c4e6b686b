"""Actors on the official SDKs, newest and one major before, from their start to their end, read by the real clients."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from apify_client import ApifyClientAsync
from journeys.greenroom import TOKEN, Greenroom, eventually
from journeys.sdk import sdk_actors
from journeys.sdk.sdk_actors import Sdk, needs_npm

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SDKS = (sdk_actors.PYTHON, sdk_actors.PYTHON_BEFORE, sdk_actors.JAVASCRIPT, sdk_actors.JAVASCRIPT_BEFORE)
CLIENT_PACKAGE = {"private": True, "dependencies": {"apify-client": "2.25.0"}}
PICTURE = bytes(range(256)) * 8
INPUT = {"numbers": 4, "ending": "exit", "text": "grüß"}


def each_sdk(*, quick: Sdk | None = None) -> Any:
    """A test for each SDK; all are slow, since packages are installed, but for *quick*."""
    return pytest.mark.parametrize(
        "sdk",
        [
            pytest.param(
                sdk,
                id=sdk.name,
                marks=[
                    *([] if sdk is quick else [pytest.mark.slow]),
                    *([needs_npm] if sdk.source == "sdk-javascript" else []),
                ],
            )
            for sdk in SDKS
        ],
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server with all Actors; what none asks for is not installed."""
    folder = tmp_path_factory.mktemp("sdk-runs")
    actors = [sdk.lay_out(folder / "actors") for sdk in SDKS]
    data = sdk_actors.with_packages(folder / "data", sdk_actors.packages_for_all(tmp_path_factory))
    async with Greenroom(data, tuple(actors), {"pick_timeout_secs": 120}) as server:
        yield server


async def read_by_python(greenroom: Greenroom, run_id: str) -> dict[str, Any]:
    """What the Python client finds of a run, in the words of the JavaScript one."""
    url = f"http://127.0.0.1:{greenroom.port}"
    client = ApifyClientAsync(TOKEN, api_url=url, api_public_url=url).run(run_id)
    store = client.key_value_store()
    run = await client.get()
    assert run is not None
    items = await client.dataset().list_items()
    picture, note, output = [await store.get_record(key) for key in ("PICTURE", "NOTE", "OUTPUT")]
    return {
        "status": run.status,
        "exitCode": run.exit_code,
        "statusMessage": run.status_message,
        "isStatusMessageTerminal": run.is_status_message_terminal,
        "hasTimes": run.finished_at is not None and run.finished_at > run.started_at,
        "items": items.items,
        "total": items.total,
        "keys": [item.key for item in (await store.list_keys()).items],
        "output": output["value"],
        "picture": base64.b64encode(picture["value"]).decode(),
        "pictureType": picture["content_type"],
        "note": note["value"],
        "log": await client.log().get(),
    }


@pytest.fixture(scope="module")
def client_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the JavaScript client and the script that uses it."""
    folder = tmp_path_factory.mktemp("javascript-client")
    (folder / "package.json").write_text(json.dumps(CLIENT_PACKAGE))
    shutil.copy(Path(__file__).with_name("read_back.mjs"), folder)
    return folder


async def read_by_javascript(greenroom: Greenroom, run_id: str, folder: Path) -> dict[str, Any]:
    """What the JavaScript client finds of a run."""
    if not (folder / "node_modules").is_dir():
        await _output("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
    url = f"http://127.0.0.1:{greenroom.port}"
    return dict(json.loads(await _output("node", "read_back.mjs", url, TOKEN, run_id, cwd=folder)))


async def _output(*argv: str, cwd: Path) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out


async def finished(greenroom: Greenroom, sdk: Sdk, **given: Any) -> dict[str, Any]:
    """A batch run with this input, once it has ended."""
    started = await sdk_actors.start(greenroom, sdk, given)
    return await greenroom.ended(started["id"], within_secs=240)


async def has_logged(greenroom: Greenroom, run_id: str, text: str, within_secs: float = 200) -> None:
    async def logged() -> bool:
        return text in await greenroom.log_of(run_id)

    await eventually(logged, within_secs=within_secs, what=f"{text!r} in the log")


@each_sdk(quick=sdk_actors.PYTHON)
async def test_a_batch_run_is_read_back_alike_by_both_clients(
    greenroom: Greenroom, sdk: Sdk, client_folder: Path
) -> None:
    """Input, items, records, bytes, status message, exit code and load are what the Actor wrote or heard."""
    run = await finished(greenroom, sdk, **INPUT)
    assert run["status"] == "SUCCEEDED", await greenroom.log_of(run["id"])
    found = await read_by_python(greenroom, run["id"])
    assert {key: found[key] for key in ("status", "exitCode", "hasTimes", "items", "total")} == {
        "status": "SUCCEEDED",
        "exitCode": 0,
        "hasTimes": True,
        "items": [{"number": number, "text": f"grüß {number}"} for number in range(4)],
        "total": 4,
    }
    assert (found["statusMessage"], found["isStatusMessageTerminal"]) == ("all done", True)
    assert set(found["keys"]) >= {"INPUT", "NOTE", "OUTPUT", "PICTURE", "SEEN-INPUT"}
    assert (found["picture"], found["pictureType"]) == (base64.b64encode(PICTURE).decode(), "image/png")
    assert found["note"] == "a text: äöü"
    assert (await sdk_actors.record_of(greenroom, run, "SEEN-INPUT"))["input"] == INPUT
    assert "acknowledged 3\n" in found["log"]
    assert found["output"]["numbers"] == 4
    heard = found["output"]["load"]
    assert heard.get("memoryBytes", heard.get("memCurrentBytes")) > 1e6
    if shutil.which("npm") is not None:
        assert await read_by_javascript(greenroom, run["id"], client_folder) == found


@each_sdk()
@pytest.mark.parametrize("ending", ["fail", "crash", "code"])
async def test_how_it_ends_makes_status_and_exit_code(greenroom: Greenroom, sdk: Sdk, ending: str) -> None:
    """A failure that is told, an error nobody catches, a code of its own: FAILED, with what was kept before."""
    run = await finished(greenroom, sdk, ending=ending, code=7)
    own = 7 if sdk.exits_with_its_code else sdk.crash_code
    code = {"fail": 1, "crash": sdk.crash_code, "code": own}[ending]
    message = "it could not be done" if ending == "fail" else None
    assert (run["status"], run["exitCode"]) == ("FAILED", code), await greenroom.log_of(run["id"])
    if message is not None:
        # The JavaScript SDK ends without waiting for its last word, which then comes just after the process has gone.
        await has_last_word(greenroom, run["id"], message)
    assert [item["number"] for item in await sdk_actors.items_of(greenroom, run)] == [0, 1, 2]
    assert (await sdk_actors.record_of(greenroom, run, "OUTPUT"))["numbers"] == 3


async def has_last_word(greenroom: Greenroom, run_id: str, message: str) -> None:
    async def is_there() -> bool:
        run = await greenroom.run(run_id)
        return (run["statusMessage"], run.get("isStatusMessageTerminal")) == (message, True)

    await eventually(is_there, what=f"the last word {message!r}")


@each_sdk()
async def test_a_graceful_abort_leaves_time_for_a_last_word(greenroom: Greenroom, sdk: Sdk) -> None:
    """It hears 'aborting' and 'persistState', stores that and ends by itself: ABORTED, before its 30 s are over."""
    started = await sdk_actors.start(greenroom, sdk, {"ending": "abort"})
    await has_logged(greenroom, started["id"], "waiting to be aborted")
    aborting = await greenroom.data_of("POST", f"/actor-runs/{started['id']}/abort", params={"gracefully": "true"})
    assert aborting["status"] == "ABORTING"
    run = await greenroom.ended(started["id"], within_secs=20)
    assert (run["status"], run["exitCode"]) == ("ABORTED", 0), await greenroom.log_of(run["id"])
    assert await sdk_actors.record_of(greenroom, run, "LAST-WORD") == ["aborting", "persistState"]
    await has_last_word(greenroom, run["id"], "left politely")


@each_sdk()
async def test_a_standby_run_serves_keeps_and_leaves(greenroom: Greenroom, sdk: Sdk) -> None:
    """It is woken, keeps what each request asks for, hears its load, and says a last word when it is wound down."""
    for number in (1, 2):
        answer = await greenroom.call(sdk.name, f"/keep?number={number}", timeout=240)
        assert answer.status_code == 200, answer.text
    run_id = answer.json()["runId"]

    async def hears_load() -> bool:
        return bool((await greenroom.call(sdk.name)).json()["load"])

    await eventually(hears_load, what="the load of the run")
    run = await greenroom.ended(run_id, within_secs=40)
    assert (run["status"], run["statusMessage"]) == ("SUCCEEDED", "left politely"), await greenroom.log_of(run_id)
    assert run["meta"]["origin"] == "STANDBY"
    assert [item["number"] for item in await sdk_actors.items_of(greenroom, run)] == [1, 2]
