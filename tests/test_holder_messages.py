"""What workers and the holder of events sockets say to each other, as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.holder_messages import (
    MAX_MESSAGE_BYTES,
    Alive,
    AskFigures,
    Close,
    Dismissed,
    Figures,
    Gone,
    Held,
    Lead,
    LetGo,
    Lines,
    Message,
    Send,
    Take,
    Told,
    Use,
    Watching,
    encode,
)

texts = st.text(max_size=20)
messages = st.one_of(
    st.builds(Take, texts, texts),
    st.builds(Send, texts, texts, st.lists(texts, max_size=3).map(tuple), st.booleans()),
    st.builds(Close, texts, st.integers(1000, 4999), texts),
    st.sampled_from((Lead(), Watching(), LetGo(), Alive(), Dismissed())),
    st.builds(Held, st.lists(texts, max_size=3).map(tuple), st.booleans()),
    st.builds(Gone, texts),
    st.builds(
        Use,
        texts,
        st.lists(st.tuples(texts, st.integers(0), st.floats(0, allow_infinity=False), st.integers(0))).map(tuple),
    ),
    st.builds(Told, texts, texts),
    st.builds(AskFigures, texts),
    st.builds(Figures, texts, st.integers(0), texts),
)


@given(st.lists(messages, max_size=5), st.integers(1, 40))
def test_messages_arrive_as_they_were_sent(sent: list[Message], piece: int) -> None:
    """However the stream is cut."""
    data, lines, heard = b"".join(map(encode, sent)), Lines(), []
    for start in range(0, len(data), piece):
        heard += lines.feed(data[start : start + piece])
    assert heard == sent


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\n", id="empty"),
        pytest.param(b"hello\n", id="no JSON"),
        pytest.param(b"\xff\xfe\n", id="no text"),
        pytest.param(b'["Lead",{"more":1}]\n', id="an unknown field"),
        pytest.param(b'["Gone",{}]\n', id="a missing field"),
        pytest.param(b'["Nothing",{}]\n', id="an unknown kind"),
        pytest.param(b'["Lead",[]]\n', id="no fields"),
        pytest.param(b'{"a":1}\n', id="no pair"),
        pytest.param(b"[" * 100_000 + b"\n", id="deep"),
        pytest.param(b"x" * (MAX_MESSAGE_BYTES + 1), id="without an end"),
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    """ValueError, and never another error: the link is then given up."""
    with pytest.raises(ValueError):
        list(Lines().feed(data))
