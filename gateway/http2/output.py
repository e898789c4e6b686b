"""
No I/O: what of zttp's output is not sent as it is.

zttp gives credit for a body as soon as it has parsed it. Passed on, that would mean: never a limit for what one request
may send while its Actor does not read. So the credit of single streams is taken out, and given when the body went on.
It also offers WebSockets over HTTP/2 (RFC 8441); a browser that is offered them opens no others.
"""

from __future__ import annotations

from typing import NamedTuple

_FRAME_HEAD = 9
_SETTING = 6
_SETTINGS, _WINDOW_UPDATE = 4, 8
_ENABLE_CONNECT_PROTOCOL = 8
_WINDOW_UPDATE_HEAD = b"\x00\x00\x04\x08\x00"


class Output(NamedTuple):
    """Frames to be sent now, and the credit that they held: bytes by stream."""

    frames: bytes
    credit: dict[int, int]


def without_credit(frames: bytes) -> Output:
    """Whole *frames*, less the WINDOW_UPDATE of single streams; those of the connection stay."""
    if _WINDOW_UPDATE_HEAD not in frames:  # one look for nearly all output
        return Output(frames, {})
    kept, credit, start = [], dict[int, int](), 0
    while start < len(frames):
        end = start + _FRAME_HEAD + int.from_bytes(frames[start : start + 3])
        stream = int.from_bytes(frames[start + 5 : start + _FRAME_HEAD])
        if frames[start + 3] == _WINDOW_UPDATE and stream:
            credit[stream] = credit.get(stream, 0) + int.from_bytes(frames[start + _FRAME_HEAD : end])
        else:
            kept.append(frames[start:end])
        start = end
    return Output(b"".join(kept), credit)


def window_update(stream: int, credit: int) -> bytes:
    """The frame that lets the client send *credit* bytes more of one body."""
    return _WINDOW_UPDATE_HEAD + stream.to_bytes(4) + credit.to_bytes(4)


def without_websockets(preface: bytes) -> bytes:
    """The server's *preface*, one SETTINGS frame, without the offer of RFC 8441."""
    length = int.from_bytes(preface[:3])
    if len(preface) != _FRAME_HEAD + length or preface[3] != _SETTINGS:
        raise ValueError("The preface is one SETTINGS frame.")
    settings = [preface[at : at + _SETTING] for at in range(_FRAME_HEAD, len(preface), _SETTING)]
    kept = b"".join(one for one in settings if int.from_bytes(one[:2]) != _ENABLE_CONNECT_PROTOCOL)
    return len(kept).to_bytes(3) + preface[3:_FRAME_HEAD] + kept
