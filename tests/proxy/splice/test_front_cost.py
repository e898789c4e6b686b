"""
What a warm request costs, in what can be counted: fake transports on both sides, the real gateway between them.

Times would tell more about the machine than about the code; the one ratio here is to a fixed loop of plain Python.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from proxy.splice.wires import ANSWER, REQUEST, Bench, open_bench
from proxy.suite.stage import TOKEN

from gateway.proxy.splice import entrance

# Where it was written it was 1.2: most of it are calls and objects, so it moves little with the machine.
MOST_LOOPS = 1.8
# Where it was written: 17 and 14, and 41 and 44 where no two are alike.
MOST_CALLS = (20, 17)
MOST_CALLS_VARIED = (46, 50)


def varied(number: int) -> tuple[bytes, bytes]:
    """A request and its answer, of which each is another one."""
    request = REQUEST.replace(b"/path?a=b", b"/v%d" % (number % 7)).removesuffix(b"\r\n")
    request += b"traceparent: 00-%032x-%016x-01\r\nCookie: seen=%d\r\n\r\n" % (number, number, number)
    length = 50 + number
    return request, ANSWER.replace(b"100", b"%d" % length)[:-100] + b"y" * length


@pytest.fixture
async def bench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Bench]:
    """As it is when it is warm."""
    caplog.set_level(logging.WARNING, "gateway.requests")
    async with open_bench(tmp_path) as bench:
        yield bench


@contextmanager
def counted(loop: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Whatever the loop is asked to do."""
    asked: list[str] = []

    class Counting:
        """The loop, with a tally."""

        def __getattr__(self, name: str) -> Any:
            if name in ("call_later", "call_at", "call_soon", "create_task", "create_future"):
                asked.append(name)
            return getattr(loop, name)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", Counting)
        create_task = asyncio.TaskGroup.create_task

        def noted(group: asyncio.TaskGroup, *arguments: Any, **options: Any) -> Any:
            asked.append("create_task")
            return create_task(group, *arguments, **options)

        patch.setattr(asyncio.TaskGroup, "create_task", noted)
        yield asked


async def test_one_write_a_message_and_nothing_of_the_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred requests: a hundred writes to the Actor, a hundred to the caller; no timer, task or future."""
    before = len(bench.actor.written), len(bench.caller.written)
    with counted(asyncio.get_running_loop(), monkeypatch) as asked:
        for _ in range(100):
            bench.exchange()
    assert (len(bench.actor.written) - before[0], len(bench.caller.written) - before[1]) == (100, 100)
    assert asked == []


async def test_the_tally_sees_what_a_request_asks_of_the_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without a connection that lies ready has to wait for one, by a task: so the test above can fail."""
    bench.pool.idle.clear()
    with counted(asyncio.get_running_loop(), monkeypatch) as asked:
        bench.front.data_received(REQUEST)
    assert asked == ["create_task"]


def calls_of(work: Callable[[], None]) -> tuple[int, int]:
    """How many functions are called in *work*: the gateway's own, and by these those of C."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if frame.f_globals.get("__name__", "").startswith("gateway."):
            calls[event] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls["call"], calls["c_call"]


async def test_a_warm_request_takes_so_many_calls(bench: Bench) -> None:
    """Whoever adds some to the way of each request will hear of it."""
    bench.exchange()
    of_python, of_c = calls_of(bench.exchange)
    print(f"a warm request takes {of_python} calls of Python and {of_c} of C")
    assert of_python <= MOST_CALLS[0]
    assert of_c <= MOST_CALLS[1]


async def test_other_connections_of_a_caller_need_not_find_out_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may send a head from an address, and what the Actor then gets, is found out once; elsewhere, anew."""
    asked = []
    terms_for = entrance.terms_for
    monkeypatch.setattr(entrance, "terms_for", lambda *given, **named: asked.append(1) or terms_for(*given, **named))

    def another(address: str) -> None:
        front, _ = bench.connect(address)
        front.data_received(REQUEST)
        bench.answer()
        front.connection_lost(None)
        assert b"X-Forwarded-For: %b\r\n" % address.encode() in bench.actor.written[-1]

    plain = REQUEST.replace(b"?a=b", b"")
    bench.exchange(plain)
    another("127.0.0.1")
    assert not asked
    another("127.0.0.2")
    another("127.0.0.2")
    assert len(asked) == 1


async def test_requests_that_differ_in_values_take_few_more(bench: Bench) -> None:
    """Other paths, trace ids, cookies and lengths each time: every head is known, and none is taken apart."""
    for number in range(80):
        bench.exchange(*varied(number))
    splicing = bench.splicing
    misses = splicing.lobby.requests.misses, splicing.answers.misses
    of_python, of_c = calls_of(lambda: bench.exchange(*varied(100)))
    print(f"one that differs takes {of_python} calls of Python and {of_c} of C")
    assert of_python <= MOST_CALLS_VARIED[0]
    assert of_c <= MOST_CALLS_VARIED[1]
    assert (splicing.lobby.requests.misses, splicing.answers.misses) == misses
    assert bench.caller.written[-1].endswith(b"\r\n\r\n" + b"y" * 150)
    assert b"seen=100\r\n" in bench.actor.written[-1]


async def test_a_small_body_goes_with_its_head(bench: Bench) -> None:
    """Both ways, in one write each."""
    post = REQUEST.replace(b"GET", b"PUT").replace(b"Accept: */*", b"Content-Length: 5") + b"hello"
    before = len(bench.actor.written), len(bench.caller.written)
    bench.exchange(post)
    assert (len(bench.actor.written) - before[0], len(bench.caller.written) - before[1]) == (1, 1)
    assert bench.actor.written[-1].endswith(b"\r\n\r\nhello")
    assert bench.caller.written[-1].endswith(b"x" * 100)


async def test_every_request_has_its_own_id_and_no_token_passes(bench: Bench) -> None:
    """What was remembered of the last request is used for the next, but for that."""
    bench.exchange()
    bench.exchange()
    ids = [
        line.partition(b": ")[2]
        for written in bench.actor.written
        for line in written.split(b"\r\n")
        if line.startswith(b"X-Actor-Request-ID")
    ]
    assert len(set(ids)) == len(ids) == 3
    assert not any(TOKEN.encode() in written for written in bench.actor.written)
    assert all(ids[at] in bench.caller.written[at] for at in range(3))


@pytest.mark.slow
async def test_a_warm_request_costs_so_many_plain_loops(bench: Bench) -> None:
    """The best of many, as a ratio to a fixed loop: whoever makes it slower by half will hear of it."""

    def plain() -> None:
        found: dict[int, bytes] = {}
        for number in range(40):
            found[number] = b"%d" % number

    def best_secs(work: Any) -> float:
        secs = []
        for _ in range(30):
            started = time.perf_counter()
            for _ in range(300):
                work()
            secs.append(time.perf_counter() - started)
            bench.actor.written.clear()
            bench.caller.written.clear()
        return min(secs)

    ratio = best_secs(bench.exchange) / best_secs(plain)
    print(f"a warm request costs as much as {ratio:.2f} plain loops")
    assert ratio < MOST_LOOPS
