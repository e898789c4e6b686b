"""The frame walker, by tables of frames and against the parser of ``websockets``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from gateway.proxy.splice.frames import (
    MAX_REASON_BYTES,
    NO_CODE,
    PROTOCOL_ERROR,
    TOO_BIG,
    FrameWalker,
    close_frame,
)

KEY = b"\x01\x02\x03\x04"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = (int(opcode) for opcode in Opcode)
FIN = 0x80


@dataclass(frozen=True)
class Frame:
    """One frame as a client or a server sends it."""

    opcode: int
    payload: bytes = b""
    is_final: bool = True
    reserved: int = 0

    def encoded(self, *, is_masked: bool = True) -> bytes:
        """On the wire."""
        size = len(self.payload)
        first = self.opcode | self.reserved << 4 | (FIN if self.is_final else 0)
        mask = 0x80 if is_masked else 0
        if size < 126:
            head = bytes([first, mask | size])
        elif size < 65536:
            head = bytes([first, mask | 126]) + size.to_bytes(2)
        else:
            head = bytes([first, mask | 127]) + size.to_bytes(8)
        if not is_masked:
            return head + self.payload
        return head + KEY + bytes(byte ^ KEY[place % 4] for place, byte in enumerate(self.payload))


def walker(*, is_masked: bool = True, has_extensions: bool = False, max_message_bytes: int = 1 << 20) -> FrameWalker:
    """By default one for what a client sends."""
    return FrameWalker(is_masked=is_masked, has_extensions=has_extensions, max_message_bytes=max_message_bytes)


def hello(text: bytes = b"hello") -> bytes:
    """A text frame of a client."""
    return Frame(TEXT, text).encoded()


PINGED = Frame(PING, b"pp").encoded()
BYE = Frame(CLOSE, (1000).to_bytes(2) + b"bye").encoded()


# -- what passes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_masked", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_a_frame_of_any_size_passes_as_it_is(size: int, is_masked: bool) -> None:
    """With each of the three ways to write a length, in one read and byte by byte."""
    data = Frame(BINARY, b"x" * size).encoded(is_masked=is_masked)
    whole, bytewise = walker(is_masked=is_masked), walker(is_masked=is_masked)
    assert whole.feed(data) is data
    passed = b"".join(bytewise.feed(data[at : at + 1]) for at in range(len(data)))
    assert passed == data
    for one in (whole, bytewise):
        assert (one.is_at_boundary, one.messages, one.ending) == (True, 1, None)


def test_a_head_is_held_back_until_it_is_whole() -> None:
    """What the other side has got ends at a boundary until then, so that another frame may still be put there."""
    data = Frame(BINARY, b"x" * 70_000).encoded()
    one = walker()
    for at in range(13):
        assert one.feed(data[at : at + 1]) == b""
        assert one.is_at_boundary
    assert one.feed(data[13:14]) == data[:14]
    assert (one.is_at_boundary, one.bytes_to_boundary) == (False, 70_000)


def test_amid_a_payload_there_is_no_boundary() -> None:
    """Until its last byte has passed."""
    one, data = walker(), hello()
    assert one.feed(data[:-1]) == data[:-1]
    assert (one.is_at_boundary, one.bytes_to_boundary) == (False, 1)
    assert one.feed(data[-1:]) == data[-1:]
    assert one.is_at_boundary


def test_between_the_frames_of_a_message_there_is_a_boundary() -> None:
    """A close frame may stand there (RFC 6455 §5.4)."""
    one = walker()
    data = Frame(TEXT, b"a", is_final=False).encoded()
    assert one.feed(data) == data
    assert (one.is_at_boundary, one.messages) == (True, 0)


@pytest.mark.parametrize(
    ("frames", "messages"),
    [
        pytest.param([Frame(TEXT, b"a")], 1, id="one frame"),
        pytest.param([Frame(TEXT, b"a", is_final=False), Frame(CONTINUATION, b"b")], 1, id="two fragments"),
        pytest.param([Frame(BINARY, b"", is_final=False), Frame(CONTINUATION, b"")], 1, id="empty fragments"),
        pytest.param(
            [Frame(TEXT, b"a", is_final=False), Frame(PING, b"p"), Frame(PONG), Frame(CONTINUATION, b"b")],
            1,
            id="pings between fragments",
        ),
        pytest.param([Frame(TEXT, b"a"), Frame(PING), Frame(BINARY, b"b")], 2, id="two messages"),
        pytest.param([Frame(PING), Frame(PONG, b"x" * 125)], 0, id="no message"),
    ],
)
def test_messages_are_counted(frames: Sequence[Frame], messages: int) -> None:
    """By their last frame, whatever stands between."""
    one = walker()
    data = b"".join(frame.encoded() for frame in frames)
    assert (one.feed(data), one.messages, one.ending) == (data, messages, None)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([hello()], [True], id="a message"),
        pytest.param([Frame(PING, b"p").encoded(), Frame(PONG).encoded()], [False, False], id="ping and pong"),
        pytest.param([Frame(PING).encoded() + hello()], [True], id="a ping before a message"),
        pytest.param([hello() + Frame(PING).encoded()], [True], id="a ping after a message"),
        pytest.param([hello()[:8], hello()[8:]], [True, True], id="the rest of a message"),
        pytest.param([PINGED[:7], PINGED[7:]], [False, False], id="of a ping"),
        pytest.param([hello(), Frame(PING).encoded()], [True, False], id="one, then the other"),
        pytest.param([hello()[:3], hello()[3:]], [False, True], id="a head that is held back"),
        pytest.param([hello()[:8], hello()[8:] + Frame(PING).encoded()], [True, True], id="its end and a ping"),
        pytest.param([BYE, hello()], [False, False], id="a close frame"),
    ],
)  # fmt: skip
def test_pings_are_told_from_data(pieces: Sequence[bytes], expected: Sequence[bool]) -> None:
    """Only what belongs to a message counts as use of the socket."""
    one = walker()
    seen = []
    for piece in pieces:
        one.feed(piece)
        seen.append(one.has_data)
    assert seen == expected


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param((4001).to_bytes(2) + "dost, žluť".encode(), (4001, "dost, žluť"), id="code and reason"),
        pytest.param((1000).to_bytes(2), (1000, ""), id="code"),
        pytest.param(b"", (NO_CODE, ""), id="nothing"),
        pytest.param(b"\x03", (NO_CODE, ""), id="half a code: for the end to judge"),
        pytest.param((1006).to_bytes(2), (1006, ""), id="a code that may not be sent: for the end to judge"),
        pytest.param((1000).to_bytes(2) + b"\xff", (1000, "\ufffd"), id="not UTF-8: for the end to judge"),
        pytest.param((1000).to_bytes(2) + b"x" * 123, (1000, "x" * 123), id="as long as may be"),
    ],
)
@pytest.mark.parametrize("is_masked", [True, False], ids=["client", "server"])
def test_a_close_frame_passes_and_is_read(payload: bytes, expected: tuple[int, str], is_masked: bool) -> None:
    """It is the only payload that is looked into; it passes whole or not yet, and nothing passes after it."""
    data = Frame(CLOSE, payload).encoded(is_masked=is_masked)
    one = walker(is_masked=is_masked)
    first = Frame(PING).encoded(is_masked=is_masked)
    assert one.feed(first + data[:-1] if len(data) > 6 else first) == first
    assert one.is_at_boundary
    assert one.feed((data[-1:] if len(data) > 6 else data) + b"whatever") == data
    assert one.ending is not None
    assert (one.ending.code, one.ending.reason, one.ending.is_fault) == (*expected, False)
    assert one.feed(first) == b""


def test_a_close_frame_may_stand_amid_a_message() -> None:
    """After one of its fragments."""
    one = walker()
    data = Frame(TEXT, b"a", is_final=False).encoded() + BYE
    assert one.feed(data) == data
    assert one.ending is not None
    assert (one.ending.code, one.messages) == (1000, 0)


RESERVED_OPCODES = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
FAULTS = [
    *(pytest.param([Frame(TEXT, reserved=bit)], "reserved bits", id=f"reserved bit {bit}") for bit in (1, 2, 4, 7)),
    pytest.param([Frame(PING, reserved=4)], "reserved bits", id="reserved bit of a ping"),
    *(pytest.param([Frame(code)], f"opcode {code}", id=f"opcode {code}") for code in RESERVED_OPCODES),
    pytest.param([Frame(CONTINUATION)], "continuation of no message", id="continuation of nothing"),
    pytest.param([Frame(TEXT), Frame(CONTINUATION)], "continuation of no message", id="continuation after the end"),
    pytest.param([Frame(TEXT, is_final=False), Frame(TEXT)], "amid another", id="text amid a message"),
    pytest.param([Frame(TEXT, is_final=False), Frame(BINARY)], "amid another", id="binary amid a message"),
    pytest.param([Frame(PING, is_final=False)], "control frame in fragments", id="fragmented ping"),
    pytest.param([Frame(CLOSE, is_final=False)], "control frame in fragments", id="fragmented close"),
    pytest.param([Frame(PING, b"x" * 126)], "more than 125", id="ping of 126"),
    pytest.param([Frame(PONG, b"x" * 70_000)], "more than 125", id="pong of 70,000"),
    pytest.param([Frame(CLOSE, b"x" * 126)], "more than 125", id="close of 126"),
]  # fmt: skip


@pytest.mark.parametrize(("frames", "says"), FAULTS)
@pytest.mark.parametrize("is_masked", [True, False], ids=["client", "server"])
def test_what_breaks_the_framing_is_refused(frames: Sequence[Frame], says: str, is_masked: bool) -> None:
    """The frames before it pass, it does not, nor does what follows; 1002 and the reason are told."""
    *before, last = (frame.encoded(is_masked=is_masked) for frame in [Frame(PING, b"p"), *frames])
    one = walker(is_masked=is_masked)
    assert one.feed(b"".join(before) + last + hello()) == b"".join(before)
    assert one.ending is not None
    assert (one.ending.code, one.ending.is_fault, one.is_at_boundary) == (PROTOCOL_ERROR, True, True)
    assert says in one.ending.reason
    assert len(one.ending.reason) <= MAX_REASON_BYTES
    assert one.feed(hello()) == b""


@pytest.mark.parametrize(("is_masked", "says"), [(True, "without a mask"), (False, "a masked frame")])
def test_only_clients_mask(is_masked: bool, says: str) -> None:
    """And they always do (§5.1)."""
    one = walker(is_masked=is_masked)
    assert one.feed(Frame(TEXT, b"hello").encoded(is_masked=not is_masked)) == b""
    assert one.ending is not None
    assert (one.ending.code, one.ending.is_fault) == (PROTOCOL_ERROR, True)
    assert says in one.ending.reason


def test_a_fault_is_seen_before_the_head_is_whole() -> None:
    """Two bytes are enough: a bad sender is not waited for."""
    one = walker()
    assert one.feed(b"\x83\x80") == b""
    assert one.ending is not None


def test_with_extensions_the_reserved_bits_are_the_ends_business() -> None:
    """As permessage-deflate has them; other opcodes stay reserved."""
    one = walker(has_extensions=True)
    data = Frame(TEXT, b"a", reserved=4, is_final=False).encoded() + Frame(CONTINUATION, b"b").encoded()
    assert (one.feed(data), one.ending, one.messages) == (data, None, 1)
    assert one.feed(Frame(3).encoded()) == b""
    assert one.ending is not None
    assert one.ending.reason == "the reserved opcode 3"


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        pytest.param([100], True, id="just as long"),
        pytest.param([101], False, id="one byte more"),
        pytest.param([60, 40], True, id="fragments, just as long"),
        pytest.param([60, 41], False, id="fragments, one byte more"),
        pytest.param([50, 50, 0], True, id="an empty last fragment"),
        pytest.param([1 << 40], False, id="a length that nobody has"),
    ],
)
def test_a_message_may_have_so_many_bytes(sizes: Sequence[int], fits: bool) -> None:
    """Counted over its fragments, and refused by the head of the frame that goes beyond (1009)."""
    one = walker(max_message_bytes=100)
    last = len(sizes) - 1
    for place, size in enumerate(sizes):
        head = Frame(TEXT if not place else CONTINUATION, b"", is_final=place == last).encoded()[:1]
        head += bytes([0xFF]) + size.to_bytes(8) + KEY
        passed = one.feed(head)
        if place < last or fits:
            assert passed == head
            assert one.feed(b"x" * size) == b"x" * size
    if fits:
        assert one.ending is None
        data = Frame(BINARY, b"x" * 100).encoded()
        assert one.feed(data) == data  # the next one begins at nought
    else:
        assert one.ending is not None
        assert (one.ending.code, one.ending.is_fault, one.is_at_boundary) == (TOO_BIG, True, True)


def test_a_length_of_64_bits_is_no_length() -> None:
    """Its first bit must be 0 (§5.2)."""
    one = walker()
    assert one.feed(b"\x82\xff" + b"\xff" * 8 + KEY) == b""
    assert one.ending is not None
    assert one.ending.code == PROTOCOL_ERROR


@pytest.mark.parametrize("key", [b"", KEY], ids=["to the caller", "to the Actor"])
@pytest.mark.parametrize("reason", ["", "going away", "ž" * 100], ids=["none", "short", "too long"])
def test_our_close_frames_are_readable(key: bytes, reason: str) -> None:
    """With the code and as much of the reason as there is room for, in whole characters."""
    frame = close_frame(1001, reason, key)
    one = walker(is_masked=bool(key))
    assert one.feed(frame) == frame
    assert one.ending is not None
    assert (one.ending.code, one.ending.is_fault) == (1001, False)
    assert reason.startswith(one.ending.reason)
    assert len(one.ending.reason.encode()) >= min(len(reason.encode()), MAX_REASON_BYTES - 1)


# -- any bytes ---------------------------------------------------------------------------------------------------------

FRAMES = st.one_of(
    st.builds(
        Frame,
        opcode=st.sampled_from([CONTINUATION, TEXT, BINARY, PING, PONG, 3, 11]),
        payload=st.one_of(st.binary(max_size=8), st.sampled_from([120, 125, 126, 130, 256, 257]).map(bytes)),
        is_final=st.booleans(),
        reserved=st.sampled_from([0, 0, 0, 0, 4]),
    ),
    # What a close frame says is for the ends to judge, hence nothing odd in it.
    st.builds(Frame, opcode=st.just(CLOSE), payload=st.sampled_from([b"", (1000).to_bytes(2) + b"bye", bytes(126)])),
)
VALID = st.lists(
    st.one_of(
        st.builds(lambda data: [Frame(TEXT, data)], st.binary(max_size=200)),
        st.builds(lambda data: [Frame(PING, data)], st.binary(max_size=125)),
        st.builds(
            lambda a, b, c: [Frame(BINARY, a, is_final=False), Frame(PONG, b), Frame(CONTINUATION, c)],
            st.binary(max_size=8),
            st.binary(max_size=8),
            st.binary(max_size=8),
        ),
    ),
    max_size=6,
).map(lambda groups: [frame for group in groups for frame in group])


def pieces(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """*data* cut at these places."""
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return (data[start:end] for start, end in pairwise(places))


@given(frames=VALID, cuts=st.lists(st.integers(0, 600)), is_masked=st.booleans())
def test_however_it_comes_all_of_it_passes(frames: Sequence[Frame], cuts: Sequence[int], is_masked: bool) -> None:
    """What has passed is always a beginning of what came, and a boundary is told exactly where there is one."""
    encoded = [frame.encoded(is_masked=is_masked) for frame in frames]
    data = b"".join(encoded)
    boundaries = {sum(map(len, encoded[:count])) for count in range(len(encoded) + 1)}
    one, passed, came = walker(is_masked=is_masked), b"", 0
    for piece in pieces(data, cuts):
        came += len(piece)
        passed += one.feed(piece)
        assert data.startswith(passed)
        assert came - len(passed) < 14
        assert one.is_at_boundary == (len(passed) in boundaries)
    assert (passed, one.ending) == (data, None)


@settings(max_examples=500)
@given(frames=st.lists(FRAMES, max_size=6), cuts=st.lists(st.integers(0, 600)))
def test_websockets_agrees_on_what_is_a_frame(frames: Sequence[Frame], cuts: Sequence[int]) -> None:
    """
    What passes are exactly the frames that the parser of ``websockets`` takes, and faults have the same codes.

    But amid a message: that parser wants it to be finished before a close frame, and counts pings to its size.
    """
    oracle = ServerProtocol(state=OPEN, max_size=256)
    data = b"".join(frame.encoded() for frame in frames)
    oracle.receive_data(data)
    assume(str(oracle.parser_exc) != "incomplete fragmented message")
    taken = len(oracle.events_received())
    is_too_big = isinstance(oracle.parser_exc, PayloadTooBig)
    assume(not is_too_big or frames[taken].opcode < CLOSE)
    one = walker(max_message_bytes=256)
    passed = b"".join(one.feed(piece) for piece in pieces(data, cuts))
    assert passed == b"".join(frame.encoded() for frame in frames[:taken])
    if oracle.parser_exc is None:
        assert one.ending is None or not one.ending.is_fault
        return
    assert one.ending is not None
    assert one.ending.is_fault
    if isinstance(
        oracle.parser_exc, PayloadTooBig
    ):  # it looks at the size first; the frame may have another fault, too
        assert one.ending.code in (TOO_BIG, PROTOCOL_ERROR)
    else:
        assert one.ending.code == PROTOCOL_ERROR


@given(data=st.lists(st.binary(max_size=40), max_size=8), is_masked=st.booleans(), has_extensions=st.booleans())
def test_any_bytes_whatever(data: Sequence[bytes], is_masked: bool, has_extensions: bool) -> None:
    """Nothing is raised, nothing is made up, and one read or many come to the same."""
    at_once, piecewise = (walker(is_masked=is_masked, has_extensions=has_extensions) for _ in range(2))
    whole = b"".join(data)
    passed = b"".join(piecewise.feed(piece) for piece in data)
    assert whole.startswith(passed)
    assert at_once.feed(whole) == passed
    assert (at_once.ending, at_once.messages, at_once.is_at_boundary) == (
        piecewise.ending,
        piecewise.messages,
        piecewise.is_at_boundary,
    )
