"""Secret fields of inputs: what is stored tells nothing, and the private key opens it by the SDKs' recipe."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.core.errors import LaunchError
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin, Run, RunOptions
from gateway.input_secrets import KEY_ID, PrivateKey, private_key, public_key, with_secrets_encrypted
from gateway.new_run import RANDOM_BYTES, bare_run
from gateway.secret_box import SecretBox
from gateway.state.blobs import open_blobs
from gateway.state.ports import Blobs

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BOX = SecretBox(b"a key for tests")
USER, ACTOR = "UserId00000000001", "ActorId0000000001"


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return open_blobs(tmp_path / "blobs")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def a_run(key_id: str | None) -> Run:
    build = Build(
        id="BuildId0000000001",
        actor_id=ACTOR,
        user_id=USER,
        version_number="0.1",
        build_number="0.1.1",
        status=RunStatus.SUCCEEDED,
        started_at=AT,
        origin=Origin.CLI,
    )
    return bare_run(
        build=build,
        user_id=USER,
        origin=Origin.API,
        options=RunOptions(),
        now=AT,
        random_bytes=os.urandom(RANDOM_BYTES),
        meta={KEY_ID: key_id} if key_id else {},
    )


def opened(text: str, given: PrivateKey) -> str:
    """As both SDKs open it. Source: apify-wire.md §3.3."""
    key = load_pem_private_key(base64.b64decode(given.pem_base64), given.passphrase.encode())
    assert isinstance(key, rsa.RSAPrivateKey)
    kind, password, data = (text.split(":")[0], *(base64.b64decode(part) for part in text.split(":")[-2:]))
    assert kind in {"ENCRYPTED_VALUE", "ENCRYPTED_JSON"}
    password = key.decrypt(password, padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None))
    assert len(password) == 48
    decryptor = Cipher(algorithms.AES(password[:32]), modes.GCM(password[32:], data[-16:])).decryptor()
    return (decryptor.update(data[:-16]) + decryptor.finalize()).decode()


async def test_what_is_encrypted_is_opened_by_the_run(blobs: Blobs) -> None:
    """Texts and JSON; null and all other fields stay as they are."""
    key = await public_key(blobs, BOX, USER, ACTOR)
    value: dict[str, Any] = {"a": "grün", "b": {"x": [1]}, "c": None, "d": "open"}
    stored = with_secrets_encrypted(value, ["a", "b", "c", "absent"], key)
    assert (stored["c"], stored["d"], set(stored)) == (None, "open", set(value))
    assert "grün" not in json.dumps(stored, ensure_ascii=False)
    given = await private_key(blobs, BOX, a_run(key.id))
    assert given is not None
    assert opened(stored["a"], given) == "grün"
    assert json.loads(opened(stored["b"], given)) == {"x": [1]}
    assert stored["a"].startswith("ENCRYPTED_VALUE:")
    assert stored["b"].startswith("ENCRYPTED_JSON:")


async def test_the_same_text_looks_different_each_time(blobs: Blobs) -> None:
    """And what is encrypted already, such as the input of an earlier run, is left alone."""
    key = await public_key(blobs, BOX, USER, ACTOR)
    first, second = (with_secrets_encrypted({"a": "x"}, ["a"], key) for _ in range(2))
    assert first != second
    assert with_secrets_encrypted(first, ["a"], key) == first


async def test_keys(blobs: Blobs) -> None:
    """One for each user and Actor; no key without something encrypted, and a lost one is told."""
    first = await public_key(blobs, BOX, USER, ACTOR)
    assert (await public_key(blobs, BOX, USER, ACTOR)).id == first.id
    assert (await public_key(blobs, BOX, "UserId00000000002", ACTOR)).id != first.id
    assert await private_key(blobs, BOX, a_run(None)) is None
    with pytest.raises(LaunchError):
        await private_key(blobs, BOX, a_run("KeyId000000000001"))
    with pytest.raises(LaunchError):
        await private_key(blobs, SecretBox(b"another key"), a_run(first.id))


async def test_a_private_key_is_kept_sealed(blobs: Blobs, tmp_path: Path) -> None:
    """No file has it in plain, nor its passphrase."""
    key = await public_key(blobs, BOX, USER, ACTOR)
    given = await private_key(blobs, BOX, a_run(key.id))
    assert given is not None
    files = [path.read_bytes() for path in files_in(tmp_path)]
    assert len(files) >= 2
    assert not any(b"PRIVATE KEY" in file or given.passphrase.encode() in file for file in files)
