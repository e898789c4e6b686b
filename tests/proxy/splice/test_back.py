"""A connection to a run: which answer it reads out of what comes, and whether it may carry another request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Address
from gateway.proxy.splice.answer_cache import AnswerHeads, SeenAnswer
from gateway.proxy.splice.answer_head import CHUNKED, UNTIL_EOF
from gateway.proxy.splice.back import Back

HOST = b"bob--actor.localhost"


class Transport:
    """As far as it is used, and what was done to it."""

    def __init__(self) -> None:
        self.is_aborted = False
        self.unsent_bytes = 0
        self.pauses: list[bool] = []

    def get_extra_info(self, _name: str) -> None:
        """There is no socket behind it."""

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def pause_reading(self) -> None:
        self.pauses.append(True)

    def resume_reading(self) -> None:
        self.pauses.append(False)


@dataclass
class Caller:
    """Notes what it is told; fails where it is told anything after the end."""

    method: bytes = b"GET"
    upgrade: bytes | None = None
    takes_chunks: bool = True
    host: bytes = HOST
    interims: list[int] = field(default_factory=list)
    status: int | None = None
    length: int | None = None
    body: bytes = b""
    is_whole: bool = False
    rest: bytes | None = None
    failures: list[tuple[str, bool, bool]] = field(default_factory=list)
    fullness: list[bool] = field(default_factory=list)

    def interim(self, seen: SeenAnswer) -> None:
        self._must_be_open()
        assert self.status is None
        self.interims.append(seen.facts.status)

    def begun(self, seen: SeenAnswer, length: int, pieces: Sequence[bytes], *, is_whole: bool) -> None:
        self._must_be_open()
        assert self.status is None
        self.status, self.length, self.body, self.is_whole = seen.facts.status, length, b"".join(pieces), is_whole

    def more(self, pieces: Sequence[bytes], *, is_last: bool) -> None:
        self._must_be_open()
        assert self.status is not None
        self.body += b"".join(pieces)
        self.is_whole = is_last

    def switched(self, seen: SeenAnswer, rest: bytes) -> None:
        self._must_be_open()
        self.status, self.rest = seen.facts.status, rest

    def failed(self, problem: str, *, has_begun: bool, saw_bytes: bool) -> None:
        self._must_be_open()
        self.failures.append((problem, has_begun, saw_bytes))

    def actor_is_full(self, *, is_full: bool) -> None:
        self.fullness.append(is_full)

    def _must_be_open(self) -> None:
        assert not self.is_whole
        assert not self.failures


class Home:
    """A pool that only notes."""

    address = Address(host="127.0.0.1", port=1)

    def __init__(self) -> None:
        self.kept: list[tuple[Back, float]] = []
        self.dropped: list[Back] = []

    def keep(self, back: Back, now: float) -> None:
        self.kept.append((back, now))

    def drop(self, back: Back) -> None:
        self.dropped.append(back)


class Bench:
    """A connection that stands, and who uses it."""

    def __init__(self, answers: AnswerHeads | None = None) -> None:
        self.home = Home()
        self.gone: list[Back] = []
        self.transport = Transport()
        self.back = Back(self.home, answers or AnswerHeads(), self.gone.append)
        self.back.connection_made(cast(Any, self.transport))

    def ask(self, **about: Any) -> Caller:
        """A request goes out; whoever gets its answer."""
        caller = Caller(**about)
        self.back.carry(caller)
        return caller

    def hears(self, *pieces: bytes) -> None:
        """So it comes, as long as the connection stands."""
        for piece in pieces:
            if not self.transport.is_aborted:
                self.back.data_received(piece)

    def ends(self) -> None:
        """The Actor has closed."""
        self.back.eof_received()
        self.back.connection_lost(None)


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """In pieces, none of them empty."""
    ends = sorted({at % len(data) for at in cuts} - {0})
    return [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@dataclass(frozen=True)
class Case:
    """An answer, and what is to be made of it."""

    wire: bytes
    body: bytes
    status: int = 200
    length: int = 0
    stays: bool = True
    method: bytes = b"GET"
    takes_chunks: bool = True
    interims: tuple[int, ...] = ()


CHUNKS = b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
CASES = {
    "with a length": Case(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", length=5),
    "with nothing in it": Case(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "to HEAD": Case(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"", method=b"HEAD"),
    "204": Case(b"HTTP/1.1 204 No Content\r\n\r\n", b"", status=204),
    "304 with the length of what it spares": Case(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", status=304
    ),
    "in chunks": Case(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, CHUNKS, length=CHUNKED),
    "in chunks, for who takes none": Case(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
        b"abcde",
        length=CHUNKED,
        takes_chunks=False,
    ),
    "the last one": Case(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", length=5, stays=False
    ),
    "of an old server": Case(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", length=5, stays=False),
    "after early hints": Case(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        length=5,
        interims=(103, 100),
    ),
}
ANY_CASE = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])


def check(bench: Bench, caller: Caller, case: Case) -> None:
    """All of *case* was read, once, and nothing else."""
    assert not caller.failures
    assert (caller.status, caller.length, caller.body) == (case.status, case.length, case.body)
    assert caller.is_whole
    assert tuple(caller.interims) == case.interims
    assert bench.back.can_stay is case.stays


@ANY_CASE
def test_an_answer(case: Case) -> None:
    """In one piece, as most come."""
    bench = Bench()
    caller = bench.ask(method=case.method, takes_chunks=case.takes_chunks)
    bench.hears(case.wire)
    check(bench, caller, case)


@ANY_CASE
@given(cuts=st.lists(st.integers(0, 10_000), max_size=30))
def test_an_answer_in_pieces(case: Case, cuts: list[int]) -> None:
    """However it comes, it is the same; also byte by byte, and where such a head is known already."""
    answers = AnswerHeads()
    for pieces in (cut(case.wire, cuts), [case.wire], cut(case.wire, range(len(case.wire)))):
        bench = Bench(answers)
        caller = bench.ask(method=case.method, takes_chunks=case.takes_chunks)
        bench.hears(*pieces)
        check(bench, caller, case)


@given(
    names=st.lists(st.sampled_from([name for name, case in CASES.items() if case.stays]), min_size=2, max_size=8),
    cuts=st.lists(st.integers(0, 10_000), max_size=6),
)
def test_answers_one_after_the_other(names: list[str], cuts: list[int]) -> None:
    """None is affected by what was read on the connection before."""
    bench = Bench()
    for name in names:
        case = CASES[name]
        caller = bench.ask(method=case.method, takes_chunks=case.takes_chunks)
        bench.hears(*cut(case.wire, cuts))
        check(bench, caller, case)
        bench.back.let_go(1.0, is_request_over=True)
    assert [back for back, _ in bench.home.kept] == [bench.back] * len(names)


def test_an_answer_until_the_end_of_the_connection() -> None:
    """Whole when that has come in good order, and the connection's last one."""
    bench = Bench()
    caller = bench.ask()
    bench.hears(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo")
    assert (caller.length, caller.body, caller.is_whole) == (UNTIL_EOF, b"hello", False)
    assert not bench.back.can_stay
    bench.ends()
    assert caller.is_whole
    assert bench.gone == bench.home.dropped == [bench.back]


def test_the_head_that_came_last_may_answer_another_method() -> None:
    """The same bytes mean a body after GET and none after HEAD."""
    bench = Bench()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    for method, body in ((b"GET", b"hello"), (b"HEAD", b""), (b"GET", b"hello")):
        caller = bench.ask(method=method)
        bench.hears(head + body)
        assert (caller.body, caller.is_whole, caller.failures) == (body, True, [])


def test_a_cookie_is_kept_to_the_host_of_each_caller() -> None:
    """Also where the same head comes again on the same connection, for another host."""
    bench = Bench()
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1; Domain=localhost\r\n\r\n"
    texts = []
    for host in (b"bob--actor.localhost", b"ann--actor.localhost"):
        caller = bench.ask(host=host)
        heads: list[bytes] = []
        caller.begun = lambda seen, *_, heads=heads, **__: heads.append(seen.head)  # type: ignore[method-assign]
        bench.hears(wire)
        texts += heads
    assert all(b"domain=localhost" not in text.lower() for text in texts), texts


# -- what breaks off, and what is no answer ----------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("heard", "problem", "has_begun", "saw_bytes"),
    [
        pytest.param(b"", "dropped the connection before it answered", False, False, id="without a word"),
        pytest.param(HEAD[:9], "dropped the connection before it answered", False, True, id="amid its head"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\n\r\n",
            "dropped the connection before it answered",
            False,
            True,
            id="after early hints",
        ),
        pytest.param(HEAD, "cut its answer short", True, True, id="before the body"),
        pytest.param(HEAD + b"hell", "cut its answer short", True, True, id="amid a body"),
        pytest.param(IN_CHUNKS + b"5\r\nhello\r\n", "cut its answer short", True, True, id="before the last chunk"),
    ],
)
def test_an_actor_that_breaks_off(heard: bytes, problem: str, has_begun: bool, saw_bytes: bool) -> None:
    """It is told how far it came, since that decides whether the request may be sent once more."""
    bench = Bench()
    caller = bench.ask()
    if heard:
        bench.hears(heard)
    bench.ends()
    assert caller.failures == [(problem, has_begun, saw_bytes)]
    assert not caller.is_whole
    bench.back.let_go(1.0, is_request_over=True)
    assert bench.home.kept == []


def test_a_reset_does_not_end_an_answer_of_unknown_length() -> None:
    """What was lost with it could have been half of the body."""
    bench = Bench()
    caller = bench.ask()
    bench.hears(b"HTTP/1.1 200 OK\r\n\r\nhel")
    bench.back.connection_lost(ConnectionResetError())
    assert caller.failures == [("cut its answer short", True, True)]


@pytest.mark.parametrize(
    "heard",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n", id="bare line feeds"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", id="two lengths"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
            id="a length and chunks",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, id="a head without an end"),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            id="a switch that nobody asked for",
        ),
        pytest.param(IN_CHUNKS + b"5\r\nhello\r\nnonsense\r\n", id="a bad chunk that comes with the head"),
    ],
)
def test_what_is_no_answer(heard: bytes) -> None:
    """The connection is cut, since nobody knows what comes next on it, and whoever asked is told so once."""
    bench = Bench()
    caller = bench.ask()
    bench.hears(*cut(heard, range(0, len(heard), 5_000)))
    assert bench.transport.is_aborted
    ((problem, has_begun, saw_bytes),) = caller.failures
    assert (has_begun, saw_bytes) == (False, True)
    assert problem.startswith("answered with something that is not HTTP (")
    bench.back.connection_lost(None)
    assert len(caller.failures) == 1


def test_a_bad_chunk_amid_an_answer() -> None:
    """It is too late for another answer: whoever asked is told so once, and the connection is cut."""
    bench = Bench()
    caller = bench.ask()
    bench.hears(IN_CHUNKS + b"5\r\nhello\r\n", b"nonsense\r\n")
    bench.back.connection_lost(None)
    ((problem, has_begun, _),) = caller.failures
    assert problem.startswith("broke the rules in the middle of its answer (")
    assert has_begun
    assert bench.transport.is_aborted


@pytest.mark.parametrize(
    "heard",
    [
        pytest.param([HEAD + b"hello" + HEAD], id="in the same piece"),
        pytest.param([HEAD, b"hello" + HEAD], id="with the end of its body"),
        pytest.param([IN_CHUNKS + CHUNKS + HEAD], id="after the last chunk"),
        pytest.param([IN_CHUNKS + CHUNKS[:-1], CHUNKS[-1:] + HEAD], id="with the end of the last chunk"),
    ],
)
def test_what_comes_past_an_answer_is_no_next_answer(heard: list[bytes]) -> None:
    """This one is whole; the connection carries no other one."""
    bench = Bench()
    caller = bench.ask()
    bench.hears(*heard)
    assert caller.is_whole
    assert HEAD not in caller.body
    assert not bench.back.can_stay
    bench.back.let_go(1.0, is_request_over=True)
    assert bench.transport.is_aborted
    assert bench.home.kept == []


def test_bytes_that_nobody_asked_for() -> None:
    """On a connection that lies idle they could be taken for the next answer: it is cut."""
    bench = Bench()
    bench.hears(HEAD + b"hello")
    assert bench.transport.is_aborted


# -- its end, and its pauses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "is_request_over", "unsent_bytes", "is_kept"),
    [
        pytest.param(HEAD + b"hello", True, 0, True, id="all in good order"),
        pytest.param(HEAD + b"hello", False, 0, False, id="answered before the request was over"),
        pytest.param(HEAD + b"hello", True, 9, False, id="some of the request was never taken"),
        pytest.param(b"", True, 0, False, id="nobody wants the answer"),
    ],
)
def test_whether_it_is_kept(wire: bytes, is_request_over: bool, unsent_bytes: int, is_kept: bool) -> None:
    """For another request, only where nothing of this one can still be on its way in either direction."""
    bench = Bench()
    bench.ask()
    if wire:
        bench.hears(wire)
    bench.transport.unsent_bytes = unsent_bytes
    bench.back.let_go(7.0, is_request_over=is_request_over)
    assert bench.home.kept == ([(bench.back, 7.0)] if is_kept else [])
    assert bench.transport.is_aborted is not is_kept
    assert bench.back.is_reused is is_kept


def test_a_switch_that_was_asked_for() -> None:
    """What the Actor has said since goes along, and the connection is the tunnel's."""
    bench = Bench()
    caller = bench.ask(upgrade=b"websocket")
    bench.hears(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes")
    assert (caller.status, caller.rest, caller.failures) == (101, b"frames", [])


def test_pauses() -> None:
    """Nothing is asked of the transport twice, nor when it is gone; who takes it again reads."""
    bench = Bench()
    caller = bench.ask()
    for _ in range(2):
        bench.back.pause_reading()
    bench.hears(HEAD + b"hello")
    assert caller.is_whole
    bench.back.let_go(1.0, is_request_over=True)
    assert bench.transport.pauses == [True, False]
    bench.back.resume_reading()
    bench.transport.abort()
    bench.back.pause_reading()
    assert bench.transport.pauses == [True, False]


def test_an_actor_that_reads_slowly_is_told_to_who_sends() -> None:
    """And to nobody where nobody does."""
    bench = Bench()
    bench.back.pause_writing()
    caller = bench.ask()
    bench.back.pause_writing()
    bench.back.resume_writing()
    assert caller.fullness == [True, False]
