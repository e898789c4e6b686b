"""
Calls each public method of the Python SDK's ``Actor`` and checks what it answers.

The input's ``mode`` says which part: ``check`` tries all that leave the run alive and puts what it found under the
record CHECKS; the other modes end the run in one way each, for whoever watches from outside.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from datetime import timedelta

from apify import Actor, Event
from apify_client.errors import ApifyApiError

CHECKS: dict[str, Callable[[], Awaitable[str | None]]] = {}


def check(*names: str) -> Callable[[Callable[[], Awaitable[str | None]]], Callable[[], Awaitable[str | None]]]:
    """Registers the check of the methods *names*; it fails by raising, and may answer a remark."""

    def register(function: Callable[[], Awaitable[str | None]]) -> Callable[[], Awaitable[str | None]]:
        for name in names:
            CHECKS[name] = function
        return function

    return register


async def refused(action: Awaitable[object]) -> str:
    """The type of the error that the server answers with."""
    try:
        await action
    except ApifyApiError as error:
        return f"not yet: {error.type}"
    raise AssertionError("it was not refused")


@check("init", "configuration", "is_at_home", "get_env", "log")
async def _() -> None:
    assert Actor.is_at_home()
    env, configuration = Actor.get_env(), Actor.configuration
    assert env["id"] == env.get("actor_run_id", env["id"])
    assert configuration.actor_run_id == os.environ["ACTOR_RUN_ID"]
    assert configuration.actor_id == os.environ["ACTOR_ID"] == env["id"]
    assert env["default_dataset_id"] == os.environ["ACTOR_DEFAULT_DATASET_ID"] == configuration.default_dataset_id
    assert env["memory_mbytes"] == 256
    assert env["started_at"].tzinfo is not None
    Actor.log.info("a line by Actor.log")


@check("apify_client", "new_client")
async def _() -> None:
    for client in (Actor.apify_client, Actor.new_client()):
        run = await client.run(os.environ["ACTOR_RUN_ID"]).get()
        assert run.status == "RUNNING", run
        assert (await client.user().get()).username == "local"


@check("event_manager", "on", "off")
async def _() -> None:
    seen: list[object] = []
    heard = asyncio.Event()

    def listener(data: object) -> None:
        seen.append(data)
        heard.set()

    Actor.on(Event.SYSTEM_INFO, listener)
    await asyncio.wait_for(heard.wait(), 10)
    assert 0 <= seen[0].cpu_info.used_ratio < 20, seen
    assert seen[0].memory_info.current_size.bytes > 1_000_000, seen
    Actor.off(Event.SYSTEM_INFO, listener)
    count = len(seen)
    later: asyncio.Queue[object] = asyncio.Queue()
    Actor.on(Event.SYSTEM_INFO, later.put_nowait)
    for _ in range(2):
        await asyncio.wait_for(later.get(), 10)
    assert len(seen) == count, "a listener that was taken off was called"


@check("get_input")
async def _() -> None:
    assert await Actor.get_input() == {"mode": "check", "text": "grüß", "list": [1, 2.5, None]}


@check("set_value", "get_value", "open_key_value_store")
async def _() -> None:
    values = {"an-object": {"a": [1, {"b": "ü"}]}, "a_text": "hé", "bytes.bin": b"\x00\xff\x01" * 2000, "null": None}
    for key, value in values.items():
        await Actor.set_value(key, value)
        assert await Actor.get_value(key) == value, key
    await Actor.set_value("page", "<p>", content_type="text/html; charset=utf-8")
    assert await Actor.get_value("page") == "<p>"
    assert await Actor.get_value("nothing", default_value=7) == 7
    for store in (
        await Actor.open_key_value_store(),
        await Actor.open_key_value_store(name=f"named-{os.environ['ACTOR_RUN_ID'].lower()}"),
        await Actor.open_key_value_store(alias="other"),
    ):
        await store.set_value("k", {"in": store.id})
        again = await Actor.open_key_value_store(id=store.id)
        assert await again.get_value("k") == {"in": store.id}
        assert "k" in [info.key async for info in again.iterate_keys()]
        assert await again.record_exists("k")
        await again.set_value("k", None)
        url = await again.get_public_url("k")
        assert os.environ["APIFY_API_PUBLIC_BASE_URL"] in url, url


@check("push_data", "open_dataset")
async def _() -> None:
    before = (await (await Actor.open_dataset()).get_data()).total
    await Actor.push_data({"n": 1})
    await Actor.push_data([{"n": 2, "long": "x" * 5000}, {"n": 3}])
    data = await (await Actor.open_dataset()).get_data(offset=before)
    assert [item["n"] for item in data.items] == [1, 2, 3], data
    for other in (
        await Actor.open_dataset(name=f"named-{os.environ['ACTOR_RUN_ID'].lower()}"),
        await Actor.open_dataset(alias="unknown-until-now"),
        await Actor.open_dataset(alias="declared"),
    ):
        await other.push_data([{"in": other.id}] * 3)
        again = await Actor.open_dataset(id=other.id)
        assert [item async for item in again.iterate_items()] == [{"in": other.id}] * 3
        assert (await again.get_metadata()).item_count == 3
    declared = await Actor.open_dataset(alias="declared")
    assert declared.id in os.environ["ACTOR_STORAGES_JSON"]


@check("open_request_queue")
async def _() -> None:
    for queue in (
        await Actor.open_request_queue(),
        await Actor.open_request_queue(name=f"named-{os.environ['ACTOR_RUN_ID'].lower()}"),
        await Actor.open_request_queue(alias="other"),
    ):
        await queue.add_request("http://a.test/1")
        await queue.add_requests([f"http://a.test/{n}" for n in (2, 3, 1)])
        await queue.add_request("http://a.test/first", forefront=True)
        first = await queue.fetch_next_request()
        assert first.url == "http://a.test/first", first
        await queue.reclaim_request(first, forefront=True)
        urls = []
        while request := await queue.fetch_next_request():
            urls.append(request.url)
            await queue.mark_request_as_handled(request)
        assert urls == ["http://a.test/first", *(f"http://a.test/{n}" for n in (1, 2, 3))], urls
        assert await queue.is_finished()
        metadata = await queue.get_metadata()
        assert (metadata.handled_request_count, metadata.pending_request_count) == (4, 0), metadata


@check("use_state")
async def _() -> None:
    state = await Actor.use_state({"counted": 0}, key="STATE")
    state["counted"] += 41
    assert (await Actor.use_state(key="STATE"))["counted"] == 41


@check("set_status_message", "status_message")
async def _() -> None:
    run = await Actor.set_status_message("half way")
    assert run.status_message == "half way"
    assert run.is_status_message_terminal is not True
    Actor.status_message = "almost there"
    assert Actor.status_message == "almost there"
    Actor.status_message = None


@check("start", "abort")
async def _() -> None:
    run = await Actor.start(os.environ["ACTOR_ID"], {"mode": "sleep"}, memory_mbytes=256)
    assert run.status in ("READY", "RUNNING"), run
    assert run.meta.origin == "ACTOR", run
    aborted = await Actor.abort(run.id)
    assert aborted.status in ("ABORTING", "ABORTED"), aborted
    ended = await Actor.apify_client.run(run.id).wait_for_finish(wait_duration=timedelta(seconds=30))
    assert ended.status == "ABORTED", ended


@check("call")
async def _() -> None:
    run = await Actor.call(os.environ["ACTOR_ID"], {"mode": "child", "say": "hello"}, memory_mbytes=256, logger=None)
    assert run.status == "SUCCEEDED", run
    items = await Actor.apify_client.dataset(run.default_dataset_id).list_items()
    assert items.items == [{"said": "hello"}], items
    record = await Actor.apify_client.key_value_store(run.default_key_value_store_id).get_record("OUTPUT")
    assert record["value"] == {"said": "hello"}, record


@check("start_task")
async def _() -> str:
    return await refused(Actor.start_task("local/none"))


@check("call_task")
async def _() -> str:
    return await refused(Actor.call_task("local/none"))


@check("add_webhook")
async def _() -> str:
    from apify import Webhook

    webhook = Webhook(event_types=["ACTOR.RUN.SUCCEEDED"], request_url="http://127.0.0.1:9/")
    return await refused(Actor.add_webhook(webhook))


@check("metamorph")
async def _() -> str:
    client = Actor.apify_client.run(os.environ["ACTOR_RUN_ID"])
    return await refused(client.metamorph(target_actor_id=os.environ["ACTOR_ID"]))


@check("resurrect")
async def _() -> str:
    run = await Actor.call(os.environ["ACTOR_ID"], {"mode": "child", "say": "x"}, memory_mbytes=256, logger=None)
    return await refused(Actor.resurrect(run.id))


@check("charge", "get_charging_manager")
async def _() -> str:
    result = await Actor.charge("some-event")
    assert not result.event_charge_limit_reached, result
    assert not Actor.get_charging_manager().get_pricing_info().pricing_model, "there are prices now: check them"
    return "differs: no Actor has prices yet, so nothing is charged and the SDK says so in the log"


@check("create_proxy_configuration")
async def _() -> str:
    proxy = await Actor.create_proxy_configuration(
        actor_proxy_input={"proxyUrls": ["http://127.0.0.1:9999"]},
    )
    assert await proxy.new_url() == "http://127.0.0.1:9999"
    return "differs: with proxy URLs of one's own; there is no proxy service in Greenroom"


def _public_names() -> list[str]:
    return sorted(name for name in dir(type(Actor.__wrapped__)) if not name.startswith("_"))


async def run_checks() -> None:
    """Each check once; what it found, under every method that it checks."""
    found: dict[str, str] = {}
    done: dict[object, str] = {}
    for name, function in CHECKS.items():
        if function not in done:
            try:
                done[function] = await asyncio.wait_for(function(), 90) or "works"
            except Exception:
                done[function] = "fails: " + traceback.format_exc()
        found[name] = done[function]
    await Actor.set_value("CHECKS", {"found": found, "public": _public_names()})


async def main() -> None:
    """What the input's mode says."""
    async with Actor:
        given = await Actor.get_input() or {}
        match given.get("mode"):
            case "check":
                await run_checks()
            case "child":
                await Actor.push_data({"said": given["say"]})
                await Actor.set_value("OUTPUT", {"said": given["say"]})
            case "sleep":
                await asyncio.sleep(300)
            case "exit":
                await Actor.exit(exit_code=3, status_message="left with three")
            case "fail":
                await Actor.fail(status_message="it could not be done", exception=ValueError("why"))
            case "exit-code":
                Actor.exit_code = 5
                assert Actor.exit_code == 5
            case "raise":
                raise ValueError("nobody catches this")
            case "reboot":
                starts = (await Actor.get_value("STARTS") or 0) + 1
                await Actor.set_value("STARTS", starts)
                if starts == 1:
                    await Actor.reboot()
                await Actor.set_status_message("started twice", is_terminal=True)
            case "abort":

                async def heard(_: object) -> None:
                    await Actor.set_value("HEARD", "aborting")
                    await Actor.exit()

                Actor.on(Event.ABORTING, heard)
                await Actor.abort(Actor.configuration.actor_run_id, gracefully=True, status_message="I give up")
                await asyncio.sleep(60)
            case other:
                sys.exit(f"unknown mode {other!r}")


if __name__ == "__main__":
    asyncio.run(main())
