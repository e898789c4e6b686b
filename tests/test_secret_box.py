"""Secret values at rest, and the key that they hang on."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import Refused
from gateway.secret_box import SecretBox

BOX = SecretBox(b"k" * 32)
texts = st.text(st.characters(codec="utf-8"), max_size=60)


@given(texts)
def test_what_is_sealed_can_be_opened(text: str) -> None:
    """Any text; and it does not stand in what is stored."""
    sealed = BOX.seal(text)
    assert sealed.startswith("sealed:v1:")
    assert BOX.open(sealed) == text
    assert len(text) < 4 or text not in sealed


def test_equal_texts_are_sealed_differently() -> None:
    """Whoever sees the records can't tell that two secrets are the same."""
    assert BOX.seal("same") != BOX.seal("same")


@given(texts, st.data())
def test_a_changed_text_is_refused(text: str, data: st.DataObject) -> None:
    """Every bit of it counts."""
    raw = bytearray(base64.b64decode(BOX.seal(text).removeprefix("sealed:v1:")))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match="another key"):
        BOX.open("sealed:v1:" + base64.b64encode(raw).decode())


@pytest.mark.parametrize(
    "sealed",
    [
        pytest.param("", id="empty"),
        pytest.param("plain", id="never sealed"),
        pytest.param("sealed:v1:", id="nothing in it"),
        pytest.param("sealed:v1:AAAA", id="too short for a nonce"),
        pytest.param("sealed:v1:" + "A" * 16, id="a nonce alone"),
        pytest.param("sealed:v1:not base64!", id="no base64"),
        pytest.param("sealed:v1:é", id="beyond ASCII"),
        pytest.param("sealed:v2:AAAA", id="a version of tomorrow"),
        pytest.param(BOX.seal("x") + "!", id="something added that base64 knows nothing of"),
        pytest.param(BOX.seal("x")[:-5], id="cut"),
        pytest.param(SecretBox(b"another").seal("x"), id="another key"),
    ],
)
def test_what_can_not_be_opened(sealed: str) -> None:
    """ValueError, whatever is wrong."""
    with pytest.raises(ValueError, match=r"."):
        BOX.open(sealed)


def test_derived_secrets() -> None:
    """128 bits, the same at each call, other ones for another purpose, name or key."""
    secret = BOX.derive("events", "run")
    assert len(bytes.fromhex(secret)) == 16
    assert SecretBox(b"k" * 32).derive("events", "run") == secret
    others = {BOX.derive("run-token", "run"), BOX.derive("events", "other"), SecretBox(b"x").derive("events", "run")}
    assert len(others | {secret}) == 4


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """Mode 0600, 32 bytes, used again at the next start; nothing else is left in the folder."""
    sealed = SecretBox.from_data_dir(tmp_path).seal("text")
    key = tmp_path / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32
    assert SecretBox.from_data_dir(tmp_path).open(sealed) == "text"
    assert list(tmp_path.iterdir()) == [key]


def test_processes_that_start_together_have_one_key(tmp_path: Path) -> None:
    """Whoever is first makes it; nobody ever reads half of one."""
    with ThreadPoolExecutor(8) as pool:
        boxes = list(pool.map(lambda _: SecretBox.from_data_dir(tmp_path), range(8)))
    sealed = boxes[0].seal("text")
    assert [box.open(sealed) for box in boxes] == ["text"] * 8


@pytest.mark.parametrize("left", [b"", b"half a key"], ids=["empty", "half"])
def test_a_damaged_key_is_refused(tmp_path: Path, left: bytes) -> None:
    """A file that a crash left empty must not become the key that everybody knows."""
    (tmp_path / "secret.key").write_bytes(left)
    with pytest.raises(Refused, match=r"secret\.key"):
        SecretBox.from_data_dir(tmp_path)
    assert (tmp_path / "secret.key").read_bytes() == left


def test_a_given_key_is_never_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``GREENROOM_SECRET_KEY`` wins over the file."""
    monkeypatch.setenv("GREENROOM_SECRET_KEY", "from the environment")
    sealed = SecretBox.from_data_dir(tmp_path).seal("text")
    assert list(tmp_path.iterdir()) == []
    assert SecretBox(b"from the environment").open(sealed) == "text"
