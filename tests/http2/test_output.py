"""What of zttp's output is held back, and what of its offers is left out."""

from __future__ import annotations

import pytest
import zttp
from hyperframe.frame import DataFrame, Frame, PingFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from gateway.http2.output import Output, window_update, without_credit, without_websockets

FRAMES = st.one_of(
    st.builds(lambda data: DataFrame(5, data), st.binary(max_size=40)),
    st.builds(lambda stream, credit: WindowUpdateFrame(stream, credit), st.integers(0, 9), st.integers(1, 2**31 - 1)),
    st.builds(lambda data: PingFrame(0, data), st.binary(min_size=8, max_size=8)),
    st.just(DataFrame(3, b"\x00\x00\x04\x08\x00")),  # looks like one, and is none
)


@given(st.lists(FRAMES))
def test_only_the_credit_of_streams_is_taken_out(frames: list[Frame]) -> None:
    """All other frames pass, in order; the credit of each stream is added up."""
    expected: dict[int, int] = {}
    kept = []
    for frame in frames:
        if isinstance(frame, WindowUpdateFrame) and frame.stream_id:
            expected[frame.stream_id] = expected.get(frame.stream_id, 0) + frame.window_increment
        else:
            kept.append(frame)
    output = without_credit(b"".join(frame.serialize() for frame in frames))
    assert output == Output(b"".join(frame.serialize() for frame in kept), expected)


@pytest.mark.parametrize(("stream", "credit"), [(1, 1), (2**31 - 1, 2**31 - 1)])
def test_window_update(stream: int, credit: int) -> None:
    """As hyperframe has it."""
    assert window_update(stream, credit) == WindowUpdateFrame(stream, credit).serialize()


def test_zttps_own_preface_offers_websockets_and_ours_does_not() -> None:
    """RFC 8441 alone is left out. Where zttp stops offering it, or has a switch for it, this can go."""
    engine = zttp.Connection(zttp.SERVER, zttp.HTTP2)
    engine.initiate_connection()
    theirs = engine.data_to_send()
    ours = without_websockets(theirs)
    assert _settings(theirs) == _settings(ours) | {SettingsFrame.ENABLE_CONNECT_PROTOCOL: 1}


@pytest.mark.parametrize("preface", [b"", b"\0\0\0\4\0\0\0\0", PingFrame(0, b"12345678").serialize()])
def test_what_is_no_preface_is_not_cut(preface: bytes) -> None:
    """Another version of zttp that begins otherwise is noticed at once."""
    with pytest.raises(ValueError, match="SETTINGS"):
        without_websockets(preface)


def _settings(preface: bytes) -> dict[int, int]:
    frame, length = Frame.parse_frame_header(memoryview(preface[:9]))
    assert len(preface) == 9 + length
    frame.parse_body(memoryview(preface[9:]))
    assert isinstance(frame, SettingsFrame)
    return dict(frame.settings)
