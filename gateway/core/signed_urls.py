"""
No I/O: signatures in the addresses of records, key lists and dataset items, which stand for a token.

Clients make them too, from a storage's ``urlSigningSecretKey``. That of a record is for ever; one of a whole storage
says until when it holds. Source: apify-wire.md §7.6.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

NEVER = 0

_BASE62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_KEPT_HEX_DIGITS = 30
_VERSION = "0"
_MAX_CHARS = 200
_PAYLOAD = re.compile(r"0\.([0-9]{1,16})\.[0-9A-Za-z]+")


def record_signature(secret: str, key: str) -> str:
    """The signature of one record, e.g. ``6xVSRPCd0TqthCzaWL65`` for the secret ``sk123`` and the key ``txt``."""
    digits = hmac.new(secret.encode(), key.encode(), hashlib.sha256).hexdigest()[:_KEPT_HEX_DIGITS]
    return _base62(int(digits, 16))


def is_record_signature(given: str, secret: str, key: str) -> bool:
    """Whether *given* is the signature of this record."""
    return _is_same(given, record_signature(secret, key))


def storage_signature(secret: str, storage_id: str, *, expires_at_ms: int = NEVER) -> str:
    """The signature of a store's list of keys or a dataset's items, until *expires_at_ms* (of the Unix epoch)."""
    signed = record_signature(secret, f"{_VERSION}.{expires_at_ms}.{storage_id}")
    return base64.urlsafe_b64encode(f"{_VERSION}.{expires_at_ms}.{signed}".encode()).decode().rstrip("=")


def is_storage_signature(given: str, secret: str, storage_id: str, *, now_ms: int) -> bool:
    """Whether *given*, with or without ``=`` at its end, is a signature of this storage that still holds."""
    payload = _PAYLOAD.fullmatch(_decoded(given))
    if payload is None:
        return False
    expires_at_ms = int(payload[1])
    is_right = _is_same(given.rstrip("="), storage_signature(secret, storage_id, expires_at_ms=expires_at_ms))
    return is_right and (expires_at_ms == NEVER or now_ms < expires_at_ms)


def _decoded(given: str) -> str:
    """The text that *given* stands for; empty where it stands for none."""
    if len(given) > _MAX_CHARS or not given.isascii():
        return ""
    bare = given.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _is_same(given: str, right: str) -> bool:
    """In a time that does not tell how much of *given* is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode())


def _base62(number: int) -> str:
    digits = []
    while number:
        number, digit = divmod(number, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(reversed(digits)) or _BASE62[0]
