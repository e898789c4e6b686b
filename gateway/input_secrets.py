"""
Secret fields of inputs: encrypted in the record that everybody may read who may read the store, opened by the run.

Each (user, Actor) has an RSA key. A value is encrypted with AES under a fresh key, and that with the RSA key; the SDKs
open it with the private key, which the run gets in its environment. What is kept of a private key is sealed. Two first
starts at the same moment may make a key each: both are kept, and each run knows its own by id.
Source: apify-wire.md §3.3, apify-platform.md §4.4.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import OAEP
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.core.errors import LaunchError
from gateway.core.ids import ID_BYTES, record_id
from gateway.core.model import Run
from gateway.secret_box import SecretBox
from gateway.state.ports import Blobs, StateUnavailable

# In a run's ``meta``, where callers don't see it: the id of the key that its input was encrypted with.
KEY_ID = "inputKeyId"

_RSA_BITS, _RSA_EXPONENT = 2048, 65537
_AES_KEY_BYTES, _NONCE_BYTES = 32, 16
_PADDING = OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)  # noqa: S303 - as SDKs open it
_ENCRYPTED = re.compile(r"ENCRYPTED_(?:VALUE|JSON):(?:[A-Za-z0-9+/=]+:){1,2}[A-Za-z0-9+/=]+")


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What a run needs to open its input: the key (PEM in base64, itself encrypted) and the passphrase for it."""

    pem_base64: str
    passphrase: str


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a start needs to encrypt an input."""

    id: str
    key: rsa.RSAPublicKey


async def public_key(blobs: Blobs, box: SecretBox, user_id: str, actor_id: str) -> PublicKey:
    """The key for inputs that *user_id* gives to *actor_id*, made where there is none yet."""
    stored = await blobs.get(_current(user_id, actor_id))
    if stored is None:
        made = await asyncio.to_thread(rsa.generate_private_key, _RSA_EXPONENT, _RSA_BITS)
        key_id = record_id(os.urandom(ID_BYTES))
        pem = await asyncio.to_thread(_private_pem, made, _passphrase(box, key_id))
        public_pem = made.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        await blobs.put(_private(user_id, actor_id, key_id), box.seal(pem.decode()).encode())
        stored = json.dumps({"id": key_id, "pem": public_pem.decode()}).encode()
        await blobs.put(_current(user_id, actor_id), stored)
    kept = json.loads(stored)
    key = serialization.load_pem_public_key(kept["pem"].encode())
    assert isinstance(key, rsa.RSAPublicKey)
    return PublicKey(kept["id"], key)


async def private_key(blobs: Blobs, box: SecretBox, run: Run) -> PrivateKey | None:
    """The key that opens the input of *run*; None where nothing of it is encrypted. Raises LaunchError."""
    key_id = run.meta.get(KEY_ID)
    if key_id is None:
        return None
    try:
        sealed = await blobs.get(_private(run.user_id, run.actor_id, key_id))
        if sealed is None:
            raise ValueError("it is not in the blobs")
        pem = box.open(sealed.decode())
    except (StateUnavailable, ValueError) as error:
        raise LaunchError(f"The key for the secret fields of this run's input can't be read: {error}.") from error
    return PrivateKey(base64.b64encode(pem.encode()).decode(), _passphrase(box, key_id))


def with_secrets_encrypted(value: Mapping[str, Any], secret_fields: Iterable[str], key: PublicKey) -> dict[str, Any]:
    """The input *value* with its *secret_fields* encrypted; null stays, and so does what is encrypted already."""
    encrypted = dict(value)
    for name in secret_fields:
        given = value.get(name)
        if isinstance(given, str):
            encrypted[name] = given if _ENCRYPTED.fullmatch(given) else _encrypted("ENCRYPTED_VALUE", given, key)
        elif isinstance(given, list | dict):
            encrypted[name] = _encrypted("ENCRYPTED_JSON", json.dumps(given, ensure_ascii=False), key)
    return encrypted


def _encrypted(kind: str, text: str, key: PublicKey) -> str:
    password = os.urandom(_AES_KEY_BYTES + _NONCE_BYTES)
    aes_key, nonce = password[:_AES_KEY_BYTES], password[_AES_KEY_BYTES:]
    data = AESGCM(aes_key).encrypt(nonce, text.encode(), None)
    parts = (key.key.encrypt(password, _PADDING), data)
    return ":".join((kind, *(base64.b64encode(part).decode() for part in parts)))


def _private_pem(key: rsa.RSAPrivateKey, passphrase: str) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )


def _passphrase(box: SecretBox, key_id: str) -> str:
    return box.derive("input-key", key_id)


def _current(user_id: str, actor_id: str) -> str:
    return f"input-keys/{user_id}/{actor_id}/current"


def _private(user_id: str, actor_id: str, key_id: str) -> str:
    return f"input-keys/{user_id}/{actor_id}/{key_id}"
