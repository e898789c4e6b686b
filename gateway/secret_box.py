"""Seals secret values for storage (AES-GCM); the key lies in the data folder, mode 0600, or comes from a variable."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.refusals import Refused

_PREFIX = "sealed:v1:"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class SecretBox:
    """Seals and opens short texts, and derives secrets that need no storage. Safe to share."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"greenroom seal" + key).digest()
        self._derive_key = hashlib.sha256(b"greenroom derive" + key).digest()

    @classmethod
    def from_data_dir(cls, data: Path) -> SecretBox:
        """
        The box of this data folder: its ``secret.key`` (made if absent), or ``GREENROOM_SECRET_KEY``.

        Raises Refused where that file is not a whole key: sealing with what is left of it would protect nothing.
        """
        given = os.environ.get("GREENROOM_SECRET_KEY")
        if given:
            return cls(given.encode())
        path = data / "secret.key"
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
        if len(key) < _KEY_BYTES:
            raise Refused(
                f"the key file {path} is damaged, it holds {len(key)} bytes instead of {_KEY_BYTES}: "
                "bring it back from a backup, or remove it where nothing secret was stored yet."
            )
        return cls(key)

    def seal(self, text: str) -> str:
        """*text*, unreadable without the key."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _PREFIX + base64.b64encode(nonce + AESGCM(self._key).encrypt(nonce, text.encode(), None)).decode()

    def open(self, sealed: str) -> str:
        """What was sealed. Raises ValueError when the key is another one or the text was changed."""
        if not sealed.startswith(_PREFIX):
            raise ValueError("this text was not sealed")
        raw = base64.b64decode(sealed[len(_PREFIX) :], validate=True)
        try:
            return AESGCM(self._key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None).decode()
        except InvalidTag as error:
            raise ValueError("sealed with another key: is secret.key the one of this data folder?") from error

    def derive(self, purpose: str, name: str) -> str:
        """A 128-bit secret for *name*, the same at each call, e.g. the events-socket secret of a run."""
        message = f"{purpose}\0{name}".encode()
        return hmac.new(self._derive_key, message, hashlib.sha256).hexdigest()[:32]


def _make_key(path: Path) -> None:
    """A new key at *path*, whole or not at all; where another process was faster, its key stays."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
