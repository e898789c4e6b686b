"""
No I/O: the frames of a WebSocket in one direction, walked head by head while their bytes pass as they are.

A frame's head is read and its payload stepped over, never unmasked. Passed on is what the walker has understood: a head
of which a part is missing is held back until the rest has come (13 bytes at most), and so is a close frame (130). What
was passed on therefore ends at a frame boundary or inside of one frame's payload, and the walker knows which; at a
boundary a close frame may be put in, amid a fragmented message as well (RFC 6455 §5.4).

Refused is what breaks the framing itself (§5.1 to §5.5). What frames mean, their text, their close codes and their
extensions, is for the two ends to judge.
"""

from __future__ import annotations

from typing import NamedTuple

NO_CODE = 1005
PROTOCOL_ERROR = 1002
TOO_BIG = 1009

MAX_REASON_BYTES = 123

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN = _MASKED = 0x80
_RESERVED_BITS = 0x70
_MAX_CONTROL_BYTES = 125

# What a frame's first byte says; up to _MORE it is a message's.
_LAST, _MORE, _PING_OR_PONG, _ENDS, _REFUSED = range(5)


def _kind(first: int, *, amid_message: bool, has_extensions: bool) -> int:
    opcode = first & 0x0F
    is_final = bool(first & _FIN)
    if first & _RESERVED_BITS and not has_extensions:
        return _REFUSED
    if opcode in (_TEXT, _BINARY, _CONTINUATION):
        if amid_message != (opcode == _CONTINUATION):
            return _REFUSED
        return _LAST if is_final else _MORE
    if opcode in (_CLOSE, _PING, _PONG) and is_final:
        return _ENDS if opcode == _CLOSE else _PING_OR_PONG
    return _REFUSED


# For each state of a walker the kinds by first byte: one look instead of five tests a frame.
_KINDS = {
    (amid_message, has_extensions): bytes(
        _kind(first, amid_message=amid_message, has_extensions=has_extensions) for first in range(256)
    )
    for amid_message in (False, True)
    for has_extensions in (False, True)
}


class Ending(NamedTuple):
    """Why nothing more passes: a close frame's *code* (1005 where it has none) and *reason*, or those of a fault."""

    code: int
    reason: str
    is_fault: bool


class FrameWalker:
    """
    One direction of one WebSocket.

    *is_masked* says which: a client's frames are masked, a server's are not. With *has_extensions* the reserved bits
    may be set. More than *max_message_bytes* of payload in one message, as it stands on the wire, are a fault.
    """

    __slots__ = (
        "_held", "_is_data_left", "_kinds", "_kinds_amid", "_kinds_between", "_left", "_mask_bit", "_max_message_bytes",
        "_message_bytes", "_shortest_head", "ending", "has_data", "messages",
    )  # fmt: skip

    def __init__(self, *, is_masked: bool, has_extensions: bool, max_message_bytes: int) -> None:
        self._kinds_between = _KINDS[False, has_extensions]
        self._kinds_amid = _KINDS[True, has_extensions]
        self._kinds = self._kinds_between
        self._mask_bit = _MASKED if is_masked else 0
        self._shortest_head = 6 if is_masked else 2
        self._max_message_bytes = max_message_bytes
        self._message_bytes = 0  # in the fragments so far
        self._held = b""
        self._left = 0  # of the payload that is being passed on
        self._is_data_left = False
        self.ending: Ending | None = None
        self.has_data = False
        """Whether the last ``feed`` passed anything of a message; pings, pongs and close frames are none."""
        self.messages = 0
        """Messages whose last frame has come, or begun to come."""

    @property
    def is_at_boundary(self) -> bool:
        """Whether a frame may be put after what was passed on so far."""
        return not self._left

    @property
    def bytes_to_boundary(self) -> int:
        """How much of what comes next belongs to the frame that is being passed on."""
        return self._left

    def feed(self, data: bytes) -> bytes:
        """
        What may be passed on now: what was held back before and *data*, without what is to be held back from now on.

        It ends with the close frame, or before the first frame that is a fault; then ``ending`` is set, and whatever
        comes after is dropped.
        """
        at = self._left
        self.has_data = at > 0 and self._is_data_left
        if self.ending is not None:
            return b""
        if self._held:
            data = self._held + data
            self._held = b""
        size = len(data)
        while at < size:
            start = at
            if size - start < 2:
                return self._hold_back(data, start)
            kind = self._kinds[data[start]]
            second = data[start + 1]
            length = second & 0x7F
            at += self._shortest_head
            if (
                kind > _MORE and (kind == _REFUSED or length > _MAX_CONTROL_BYTES)
            ) or second & _MASKED != self._mask_bit:
                return self._refuse(data, start, PROTOCOL_ERROR, self._fault(data[start], second))
            if length > 125:
                at += 2 if length == 126 else 8
                if at <= size:
                    length = int.from_bytes(data[start + 2 : start + (4 if length == 126 else 10)])
            if at > size:
                return self._hold_back(data, start)
            at += length
            if kind <= _MORE:
                message_bytes = self._message_bytes + length
                if message_bytes > self._max_message_bytes:
                    return self._refuse(data, start, *_too_long(length, self._max_message_bytes))
                if kind == _LAST:
                    self.messages += 1
                    self._message_bytes = 0
                    self._kinds = self._kinds_between
                else:
                    self._message_bytes = message_bytes
                    self._kinds = self._kinds_amid
                self.has_data = self._is_data_left = True
            elif kind == _PING_OR_PONG:
                self._is_data_left = False
            elif at > size:
                return self._hold_back(data, start)
            else:
                self._left = 0
                self.ending = _ending_of(data[at - length : at], data[start + 2 : at - length])
                return data[:at]
        self._left = at - size
        return data

    def _hold_back(self, data: bytes, start: int) -> bytes:
        self._left = 0
        self._held = data[start:]
        return data[:start]

    def _refuse(self, data: bytes, start: int, code: int, reason: str) -> bytes:
        self._left = 0
        self.ending = Ending(code, reason, is_fault=True)
        return data[:start]

    def _fault(self, first: int, second: int) -> str:
        """What is wrong with a frame that begins so."""
        opcode = first & 0x0F
        if second & _MASKED != self._mask_bit:
            return "a frame without a mask" if self._mask_bit else "a masked frame"
        if first & _RESERVED_BITS and self._kinds_between is _KINDS[False, False]:
            return "reserved bits without an extension"
        if opcode not in (_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG):
            return f"the reserved opcode {opcode}"
        if opcode == _CONTINUATION:
            return "a continuation of no message"
        if opcode in (_TEXT, _BINARY):
            return "a message amid another one"
        if not first & _FIN:
            return "a control frame in fragments"
        return "a control frame of more than 125 bytes"


def close_frame(code: int, reason: str, mask_key: bytes = b"") -> bytes:
    """
    A close frame, masked where *mask_key* (4 bytes) is given: towards a server.

    A *reason* that is too long for it (123 bytes) is cut after a whole character.
    """
    text = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    payload = code.to_bytes(2) + text
    if mask_key:
        return bytes((_FIN | _CLOSE, _MASKED | len(payload))) + mask_key + _masked(payload, mask_key)
    return bytes((_FIN | _CLOSE, len(payload))) + payload


def _masked(payload: bytes, key: bytes) -> bytes:
    """Masked or, since that is its own inverse, unmasked."""
    return bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


def _ending_of(payload: bytes, mask_key: bytes) -> Ending:
    if mask_key:
        payload = _masked(payload, mask_key)
    if len(payload) < 2:
        return Ending(NO_CODE, "", is_fault=False)
    return Ending(int.from_bytes(payload[:2]), payload[2:].decode(errors="replace"), is_fault=False)


def _too_long(length: int, max_message_bytes: int) -> tuple[int, str]:
    if length >> 63:  # §5.2: the most significant bit must be 0
        return PROTOCOL_ERROR, "a length of more than 63 bits"
    return TOO_BIG, f"message too big: more than {max_message_bytes} bytes"
