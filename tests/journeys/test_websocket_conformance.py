"""
WebSocket conformance: the case groups of Autobahn's suite over raw frames, each case run twice.

Once straight against an echo server (that of ``websockets``, as an Actor) and once through Greenroom: the outcome is
what RFC 6455 asks for, and it is the same. What Greenroom finds itself (broken framing) and what the Actor finds (text,
close codes) can't be told apart from outside but by the reason's wording, which is not compared for faults.

Autobahn's own programs can't be had: the package of that name holds Python 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from journeys.greenroom import Greenroom
from journeys.socket_actor import Place, RawSocket, past, push, raw_socket, through
from proxy.splice.tunnel_rig import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]  # a server, and every case twice

KIB, MIB = 1024, 1024 * 1024
GREETING = "Hello-µ@ßöäüàá-UTF-8!!".encode()


@dataclass(frozen=True)
class Case:
    """
    What is sent, and what has to come of it.

    A number among *steps* stands for a wait until so many messages and pongs have come. Unless the case closes by
    itself, or the server has to (with another *code* than 1000), a close frame with 1000 follows.
    """

    name: str
    steps: Sequence[bytes | int]
    messages: Sequence[bytes] = ()
    pongs: Sequence[bytes] = ()
    code: int | None = 1000  # of the server's close frame; None: it has none
    chop: int = 0  # sent in pieces of so many bytes
    closes: bool = False


@dataclass
class Outcome:
    """What came, with long messages by their length and digest."""

    messages: list[Any] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    code: int | None = None
    has_closed: bool = False
    _parts: list[bytes] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Messages and pongs."""
        return len(self.messages) + len(self.pongs)


def brief(data: bytes) -> Any:
    """A long message by length and digest."""
    return data if len(data) < KIB else (len(data), hashlib.sha256(data).hexdigest())


def text(payload: bytes = b"", **options: Any) -> bytes:
    """A text frame of the caller."""
    return frame(TEXT, payload, is_masked=True, **options)


def binary(payload: bytes = b"", **options: Any) -> bytes:
    """A binary frame."""
    return frame(BINARY, payload, is_masked=True, **options)


def more(payload: bytes = b"", **options: Any) -> bytes:
    """A continuation frame."""
    return frame(CONTINUATION, payload, is_masked=True, **options)


def ping(payload: bytes = b"", **options: Any) -> bytes:
    """A ping."""
    return frame(PING, payload, is_masked=True, **options)


def pong(payload: bytes = b"", **options: Any) -> bytes:
    """A pong."""
    return frame(PONG, payload, is_masked=True, **options)


def close(payload: bytes = b"", **options: Any) -> bytes:
    """A close frame."""
    return frame(CLOSE, payload, is_masked=True, **options)


def first(payload: bytes, of: int = TEXT, **options: Any) -> bytes:
    """The first fragment of a message."""
    return frame(of, payload, is_masked=True, is_final=False, **options)


def middle(payload: bytes = b"", **options: Any) -> bytes:
    """A fragment in the middle."""
    return more(payload, is_final=False, **options)


# -- the cases, by Autobahn's numbers ----------------------------------------------------------------------------------


def framing() -> Iterator[Case]:
    """1: lengths in each of the three encodings."""
    sizes = (0, 125, 126, 127, 128, 65535, 65536)
    for group, make in ((1, text), (2, binary)):
        byte = b"*" if make is text else b"\xfe"
        for number, size in enumerate(sizes, 1):
            yield Case(f"1.{group}.{number} {size} bytes", [make(byte * size), 1], [byte * size])
        yield Case(f"1.{group}.8 65536 bytes in pieces of 997", [make(byte * 65536), 1], [byte * 65536], chop=997)
        yield Case(f"1.{group}.9 126 bytes, byte by byte", [make(byte * 126), 1], [byte * 126], chop=1)


def pings() -> Iterator[Case]:
    """2: pings and pongs."""
    binary_payload = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    yield Case("2.1 without payload", [ping(), 1], pongs=[b""])
    yield Case("2.2 with text", [ping(b"Hello, world!"), 1], pongs=[b"Hello, world!"])
    yield Case("2.3 with bytes", [ping(binary_payload), 1], pongs=[binary_payload])
    yield Case("2.4 with 125 bytes", [ping(b"\xfe" * 125), 1], pongs=[b"\xfe" * 125])
    yield Case("2.5 with 126 bytes", [ping(b"\xfe" * 126)], code=1002)
    yield Case("2.6 with 125 bytes, byte by byte", [ping(b"\xfe" * 125), 1], pongs=[b"\xfe" * 125], chop=1)
    yield Case("2.7 a pong nobody asked for", [pong(), ping(b"then"), 1], pongs=[b"then"])
    yield Case("2.8 one with payload", [pong(b"unsolicited"), ping(b"then"), 1], pongs=[b"then"])
    yield Case("2.9 pong, ping", [pong(b"unsolicited"), ping(b"solicited"), 1], pongs=[b"solicited"])
    tens = [b"payload-%d" % number for number in range(10)]
    yield Case("2.10 ten", [b"".join(map(ping, tens)), 10], pongs=tens)
    yield Case("2.11 ten, byte by byte", [b"".join(map(ping, tens)), 10], pongs=tens, chop=1)
    yield Case("2.12 a ping and a message", [ping(b"p"), 1, text(b"t"), 2], [b"t"], [b"p"])


def reserved_bits() -> Iterator[Case]:
    """3: reserved bits without an extension."""
    for number in range(1, 8):
        case = [text(GREETING), 1, text(GREETING, reserved=number), ping(b"never")]
        yield Case(f"3.{number} of text", case, [GREETING], code=1002)
        yield Case(f"3.{number} alone", [binary(b"x", reserved=number)], code=1002, chop=1 if number > 4 else 0)
    yield Case("3.8 of a ping", [ping(b"x", reserved=5)], code=1002)
    yield Case("3.9 of a close frame", [close(close_payload(1000), reserved=6)], code=1002)
    yield Case("3.10 of a continuation", [first(b"x"), more(b"y", reserved=4)], code=1002)


def opcodes() -> Iterator[Case]:
    """4: reserved opcodes."""
    for group, codes in ((1, range(3, 8)), (2, range(11, 16))):
        for number, code in enumerate(codes, 1):
            bare = frame(code, is_masked=True)
            full = frame(code, b"reserved opcode payload", is_masked=True)
            yield Case(f"4.{group}.{number} opcode {code}", [bare], code=1002)
            yield Case(
                f"4.{group}.{number} opcode {code} after a message",
                [text(GREETING), 1, full, ping()],
                [GREETING],
                code=1002,
                chop=group * 3,
            )


def fragmentation() -> Iterator[Case]:
    """5: fragments, and control frames between them."""
    yield Case("5.1 a ping in fragments", [frame(PING, b"a", is_masked=True, is_final=False), more(b"b")], code=1002)
    yield Case("5.2 a pong in fragments", [frame(PONG, b"a", is_masked=True, is_final=False), more(b"b")], code=1002)
    for number, chop in ((3, 0), (4, 7), (5, 1)):
        yield Case(f"5.{number} two, cut by {chop}", [first(b"one"), more(b"two"), 1], [b"onetwo"], chop=chop)
    for number, chop in ((6, 0), (7, 7), (8, 1)):
        steps = [first(b"one"), ping(b"between"), more(b"two"), 2]
        yield Case(f"5.{number} a ping between, cut by {chop}", steps, [b"onetwo"], [b"between"], chop=chop)
    for number, chop in ((9, 0), (10, 7), (11, 1)):
        yield Case(
            f"5.{number} a continuation of nothing, cut by {chop}", [more(b"x"), text(b"y")], code=1002, chop=chop
        )
    for number, chop in ((12, 0), (13, 7), (14, 1)):
        case = [middle(b"x"), text(b"y")]
        yield Case(f"5.{number} an open continuation of nothing, cut by {chop}", case, code=1002, chop=chop)
    yield Case(
        "5.15 a continuation after the last",
        [first(b"one"), more(b"two"), 1, middle(b"three"), text(b"four")],
        [b"onetwo"],
        code=1002,
    )
    yield Case("5.16 again and again", [middle(b"a"), text(b"b"), more(b"c")] * 2, code=1002)
    yield Case("5.17 closed continuations", [more(b"a"), text(b"b"), more(b"c")] * 2, code=1002)
    yield Case("5.18 text amid text", [first(b"one"), text(b"two")], code=1002)
    for number, chop in ((19, 0), (20, 1)):
        steps = [first(b"1"), middle(b"2"), ping(b"a"), 1, middle(b"3"), middle(b"4"), ping(b"b"), 2, more(b"5"), 3]
        yield Case(f"5.{number} pings in pauses, cut by {chop}", steps, [b"12345"], [b"a", b"b"], chop=chop)
    yield Case("5.21 binary", [first(b"\x00", BINARY), middle(b"\xff"), more(b"\xfe"), 1], [b"\x00\xff\xfe"])
    # It may stand there, but ``websockets`` wants messages to be finished.
    yield Case("5.22 a close frame between", [first(b"one"), close(close_payload(1000))], code=1002)
    yield Case("5.23 binary amid text", [first(b"one"), binary(b"two")], code=1002)


def utf_8() -> Iterator[Case]:
    """6: text is UTF-8, by message and not by frame."""
    yield Case("6.1.1 empty", [text(), 1], [b""])
    yield Case("6.1.2 empty fragments", [first(b""), middle(), more(), 1], [b""])
    yield Case("6.1.3 one of three has content", [first(b""), middle(b"middle"), more(), 1], [b"middle"])
    yield Case("6.2.1 valid", [text(GREETING), 1], [GREETING])
    yield Case("6.2.2 cut between characters", [first(GREETING[:6]), more(GREETING[6:]), 1], [GREETING])
    bytewise = [first(GREETING[:1]), *(middle(GREETING[at : at + 1]) for at in range(1, len(GREETING))), more(), 1]
    yield Case("6.2.3 a fragment for each byte", bytewise, [GREETING])
    greek = "κόσμε".encode()
    bytewise = [first(greek[:1]), *(middle(greek[at : at + 1]) for at in range(1, len(greek))), more(), 1]
    yield Case("6.2.4 characters in two fragments", bytewise, [greek])
    wrong = {
        "6.3 a surrogate": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        "6.6 half a character": b"\xce\xba\xe1",
        "6.8 too short an encoding": b"\xfc\x80\x80\x80\x80\xaf",
        "6.10 beyond the last": b"\xf4\x90\x80\x80",
        "6.12 a lone continuation byte": b"\x80",
        "6.13 many of them": b"\x80\xbf\x80\xbf",
        "6.14 a lone start byte": b"\xc0 \xc1 ",
        "6.15 missing continuations": b"\xc0\xe0\x80\xf0\x80\x80",
        "6.16 impossible bytes": b"\xfe\xff",
        "6.17 overlong": b"\xc0\xaf",
        "6.18 overlong null": b"\xe0\x80\x80",
        "6.20 single surrogate": b"\xed\xbf\xbf",
        "6.21 paired surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    }
    for name, data in wrong.items():
        yield Case(name, [text(data)], code=1007)
        yield Case(f"{name}, in fragments", [first(data[:1]), more(data[1:])], code=1007)
    right = {
        "6.5 valid samples": "κόσμε, žluť, 日本".encode(),
        "6.7 first of each length": b"\x00\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80",
        "6.9 last of each length": b"\x7f\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf",
        "6.11 around the surrogates": b"\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd",
        "6.22 noncharacters": b"\xef\xbf\xbe\xef\xbf\xbf\xf0\x9f\xbf\xbe",
    }
    for name, data in right.items():
        yield Case(name, [text(data), 1], [data])
    yield Case("6.23 binary is not text", [binary(b"\xfe\xff"), 1], [b"\xfe\xff"])


def closing() -> Iterator[Case]:
    """7: the closing handshake."""
    bye = close(close_payload(1000))
    yield Case("7.1.1 after a message", [text(b"Hello"), 1], [b"Hello"])
    yield Case("7.1.2 two close frames", [bye + bye], closes=True)
    yield Case("7.1.3 a ping afterwards", [bye + ping(b"late")], closes=True)
    yield Case("7.1.4 text afterwards", [bye + text(b"late")], closes=True)
    yield Case("7.1.5 amid a message", [first(b"one"), bye + more(b"two")], code=1002)
    yield Case("7.1.6 much afterwards", [bye + binary(bytes(256 * KIB)) + ping()], closes=True)
    yield Case("7.3.1 without payload", [close()], code=1005, closes=True)
    yield Case("7.3.2 half a code", [close(b"\x03")], code=1002, closes=True)
    yield Case("7.3.3 a code", [bye], closes=True)
    yield Case("7.3.4 a code and a reason", [close(close_payload(1000, "Hello World!"))], closes=True)
    yield Case("7.3.5 the longest reason", [close(close_payload(1000, "*" * 123))], closes=True)
    yield Case("7.3.6 longer", [close(close_payload(1000, "*" * 124))], code=1002)
    yield Case(
        "7.5.1 a reason that is no text", [close((1000).to_bytes(2) + b"\xce\xba\xe1\xbd")], code=1007, closes=True
    )
    for number, code in enumerate((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999), 1):
        yield Case(f"7.7.{number} {code}", [close(close_payload(code))], code=code, closes=True)
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield Case(f"7.9.{number} {code}", [close(close_payload(code))], code=1002, closes=True)
    for number, code in enumerate((5000, 65535), 1):
        yield Case(f"7.13.{number} {code}", [close(close_payload(code))], code=1002, closes=True)
    yield Case("7.14 in fragments", [close(close_payload(1000), is_final=False)], code=1002)
    yield Case("7.15 byte by byte", [bye], closes=True, chop=1)


def limits() -> Iterator[Case]:
    """9: large messages, many fragments, small writes."""
    for group, make, of in ((1, text, TEXT), (2, binary, BINARY)):
        for number, size in enumerate((64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB), 1):
            yield Case(f"9.{group}.{number} {size // KIB} KiB", [make(b"*" * size), 1], [b"*" * size])
        for number, size in enumerate((256, KIB, 16 * KIB, 256 * KIB, MIB), 1):
            count = min(MIB // size, 1024)
            steps = [first(b"*" * size, of) + middle(b"*" * size) * (count - 2) + more(b"*" * size) if count > 1
                     else first(b"*" * size, of) + more(), 1]  # fmt: skip
            yield Case(f"9.{group + 2}.{number} fragments of {size}", steps, [b"*" * (size * count)])
        for number, chop in enumerate((64, 512, 2048), 1):
            yield Case(f"9.{group + 4}.{number} in pieces of {chop}", [make(b"*" * 128 * KIB), 1], [b"*" * 128 * KIB],
                       chop=chop)  # fmt: skip
    for number, size in enumerate((0, 16, 64, 256, KIB), 1):
        yield Case(f"9.7.{number} 200 messages of {size}", [text(b"*" * size) * 200, 200], [b"*" * size] * 200)


def miscellaneous() -> Iterator[Case]:
    """10, and what breaks the framing otherwise."""
    pieces = [b"*" * 1300] * 50
    yield Case("10.1.1 65536 bytes in fragments of 1300",
               [first(b"*" * 1300) + middle(b"*" * 1300) * 48 + more(b"*" * 1300), 1], [b"".join(pieces)])  # fmt: skip
    yield Case("10.2.1 a frame without a mask", [frame(TEXT, b"x", is_masked=False)], code=1002)
    yield Case("10.2.2 a length of 64 bits", [b"\x82\xff" + b"\xff" * 8 + bytes(4)], code=1002)


CASES = [
    case
    for group in (framing, pings, reserved_bits, opcodes, fragmentation, utf_8, closing, limits, miscellaneous)
    for case in group()
]
# Where the two differ, and why.
DIFFERENT = {
    "10.2.2 a length of 64 bits": "the server reads it as a size that is too big (1009); it is no length at all (1002)",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def places(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Place, Place]]:
    """The echo server straight, and through Greenroom."""
    async with Greenroom(tmp_path_factory.mktemp("conformance") / "data") as server:
        await push(server, standby={"desiredRequestsPerActorRun": 100, "maxRequestsPerActorRun": 100})
        yield await past(server), await through(server)


async def read_frame(socket: RawSocket, outcome: Outcome) -> None:
    """One more frame, or the end."""
    try:
        got = await socket.get()
    except (asyncio.IncompleteReadError, ConnectionError):
        outcome.has_closed = True
        return
    if got.opcode == CLOSE:
        assert outcome.code is None, "a second close frame"
        outcome.code = got.code if got.payload else 1005
    elif got.opcode == PONG:
        outcome.pongs.append(got.payload)
    else:
        assert got.opcode in (TEXT, BINARY, CONTINUATION)
        outcome._parts.append(got.payload)
        if got.is_final:
            outcome.messages.append(brief(b"".join(outcome._parts)))
            outcome._parts.clear()


async def outcome_of(case: Case, place: Place) -> Outcome:
    """The case, played once."""
    outcome = Outcome()
    async with asyncio.timeout(60), raw_socket(place) as socket:
        with contextlib.suppress(ConnectionError):  # where the server has closed meanwhile
            for step in [*case.steps, *([] if case.closes or case.code != 1000 else [close(close_payload(1000))])]:
                if isinstance(step, bytes):
                    for at in range(0, len(step), case.chop or len(step)):
                        socket.writer.write(step[at : at + (case.chop or len(step))])
                        await socket.writer.drain()
                        if case.chop:
                            await asyncio.sleep(0)
                else:
                    while outcome.count < step and not outcome.has_closed:
                        await read_frame(socket, outcome)
        while not outcome.has_closed:
            await read_frame(socket, outcome)
    return outcome


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_outcome_is_the_same(places: tuple[Place, Place], case: Case) -> None:
    """What RFC 6455 asks for comes of it, straight and through Greenroom."""
    straight, proxied = [await outcome_of(case, place) for place in places]
    expected = Outcome([brief(message) for message in case.messages], list(case.pongs), case.code, has_closed=True)
    assert proxied == expected
    if case.name in DIFFERENT:
        assert straight != expected, "no difference any more: take it off the list"
    else:
        assert straight == expected


async def test_the_suite_is_no_smaller_than_it_says() -> None:
    """All groups, each name once."""
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 200
    assert {name.partition(".")[0] for name in names} == {"1", "2", "3", "4", "5", "6", "7", "9", "10"}
    assert set(DIFFERENT) <= set(names)


# -- 12 and 13: compression, which is between the caller and the Actor ------------------------------------------------

OFFERS = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; client_max_window_bits=9; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=9, permessage-deflate",
    "x-unknown, permessage-deflate",
]


def compressed_text(size: int) -> bytes:
    """Something that compresses, but not to nothing."""
    line = b"".join(hashlib.sha256(b"%d" % number).hexdigest().encode() for number in range(size // 64 + 1))
    return line[:size]


async def compressed_echo(place: Place, offer: str, sizes: Sequence[int]) -> tuple[str | None, list[bytes], list[int]]:
    """What was agreed on, what came back, and the first bytes of its frames."""
    came, firsts = [], []
    async with asyncio.timeout(30), raw_socket(place, headers=[f"Sec-WebSocket-Extensions: {offer}"]) as socket:
        agreed = socket.header("sec-websocket-extensions")
        assert agreed is not None
        window = re.search(r"client_max_window_bits=(\d+)", agreed)
        bits = int(window[1]) if window else 15
        keeps = "client_no_context_takeover" not in agreed
        deflate = zlib.compressobj(wbits=-bits)
        inflate = zlib.decompressobj(wbits=-15)
        for size in sizes:
            if not keeps:
                deflate = zlib.compressobj(wbits=-bits)
            if "server_no_context_takeover" in agreed:
                inflate = zlib.decompressobj(wbits=-15)
            data = deflate.compress(compressed_text(size)) + deflate.flush(zlib.Z_SYNC_FLUSH)
            socket.writer.write(text(data[:-4], reserved=4))
            parts, is_final = [], False
            while not is_final:
                head = await socket.reader.readexactly(2)
                length = head[1] & 0x7F
                if length > 125:
                    length = int.from_bytes(await socket.reader.readexactly(2 if length == 126 else 8))
                parts.append(await socket.reader.readexactly(length))
                is_final = bool(head[0] & 0x80)
                firsts.append(head[0])
            came.append(inflate.decompress(b"".join(parts) + b"\x00\x00\xff\xff"))
        socket.close()
        assert (await socket.get()).code == 1000
    return agreed, came, firsts


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("size", [0, 16, 64, 256, KIB, 4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB])
async def test_compression_is_between_the_ends(places: tuple[Place, Place], offer: str, size: int) -> None:
    """What they agree on, and their compressed frames, are the same with Greenroom in between."""
    sizes = [size] * 5
    straight, proxied = [await compressed_echo(place, offer, sizes) for place in places]
    assert proxied == straight
    assert proxied[1] == [compressed_text(size)] * 5
    assert proxied[2][0] == 0xC1  # text, final, compressed


async def test_without_an_offer_nothing_is_compressed(places: tuple[Place, Place]) -> None:
    """Then reserved bits are a fault."""
    for place in places:
        async with raw_socket(place) as socket:
            assert socket.header("sec-websocket-extensions") is None
            socket.writer.write(text(b"x", reserved=4))
            assert (await socket.get()).code == 1002
