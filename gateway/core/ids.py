"""
No I/O: the shapes of names and identifiers; new ones are made from random bytes that the caller passes in.

Ids are names (17 base62 characters, as in Apify's API); secrets are longer and never derived from ids.
"""

from __future__ import annotations

import hashlib
import re

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"

ID_LENGTH = 17
ID_BYTES = 16  # 128 random bits, of which 17 base62 characters keep 101
LIVE_VIEW_LABEL_BYTES = 16
TOKEN_BYTES = 32

ID_PATTERN = re.compile(r"[A-Za-z0-9]{17}")
USERNAME_PATTERN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{1,28})[A-Za-z0-9]")
ACTOR_NAME_PATTERN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{1,61})[A-Za-z0-9]")


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def record_id(random_bytes: bytes) -> str:
    """A 17-character base62 id from at least ``ID_BYTES`` random bytes."""
    return _base62(int.from_bytes(random_bytes[:ID_BYTES]), ID_LENGTH)


def live_view_label(random_bytes: bytes) -> str:
    """The hard-to-guess DNS label of one run: all 128 bits, 26 lower-case base32 characters."""
    number = int.from_bytes(random_bytes[:LIVE_VIEW_LABEL_BYTES])
    return "".join(_BASE32[(number >> shift) & 31] for shift in range(125, -1, -5))


def api_token(random_bytes: bytes) -> str:
    """A new API token; only its hash is stored."""
    return "greenroom_api_" + _base62(int.from_bytes(random_bytes[:TOKEN_BYTES]), 43)


def token_hash(token: str) -> str:
    """What is kept of a token. Tokens are long and random, so a plain SHA-256 can't be searched backwards."""
    return token_digest(token).hex()


def token_digest(token: str) -> bytes:
    """The same in half the bytes, for memory."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def dns_friendly(username: str) -> str:
    """
    The username as it stands in host names, e.g. ``jane.doe`` is ``jane-doe``.

    Two usernames can collide here, so uniqueness is checked on this form. Source: apify-platform.md §1.2.
    """
    return re.sub(r"[^a-z0-9-]+", "-", username.lower()).strip("-")


def username_problem(username: str) -> str | None:
    """
    What is wrong with a new username, or None.

    ``--`` divides user from Actor in host names, so no username may contain it: each label then has one reading.
    """
    if not USERNAME_PATTERN.fullmatch(username):
        return "a username has 3 to 30 of A-Z, a-z, 0-9, '_', '.', '-' and begins and ends with a letter or digit"
    if "--" in dns_friendly(username):
        return "a username has no '--' in it: that divides user from Actor in host names"
    return None


def standby_label(username: str, actor_name: str) -> str | None:
    """The standby DNS label ``<username>--<actor-name>``, or None where DNS has no room for it (63 octets)."""
    label = f"{dns_friendly(username)}--{actor_name.lower()}"
    return label if len(label) <= 63 else None


def shown_standby_label(username: str, actor_name: str, actor_id: str) -> str:
    """The label in an Actor's standby URL: that of its name, or its id where DNS has no room for the name."""
    return standby_label(username, actor_name) or actor_id.lower()
