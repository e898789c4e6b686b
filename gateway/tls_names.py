"""
No I/O: which files make a certificate, and which certificate answers which name.

Of the usual ways of putting certificates into a folder these are known::

    example.com.pem (or .crt)  example.com.key         by hand, Caddy, Kubernetes (tls.crt, tls.key)
    example.com.pem            example.com-key.pem     mkcert
    fullchain.pem              privkey.pem             certbot; cert.pem and chain.pem beside them are parts of it
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

_SUFFIXES = (".pem", ".crt")
_MKCERT_KEY = "-key.pem"
_CERTBOT_CHAIN, _CERTBOT_KEY = "fullchain.pem", "privkey.pem"
_CERTBOT_PARTS = frozenset({"cert.pem", "chain.pem"})
_SOON = timedelta(days=14)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """The names of two files of one folder: a certificate with those that vouch for it, and its private key."""

    chain: str
    key: str


def pairs_among(names: Collection[str]) -> list[Pair]:
    """The certificates among the files of one folder, in the order of their names. Others are not looked at."""
    present = frozenset(names)
    found = []
    for name in sorted(present):
        is_part = name in _CERTBOT_PARTS and _CERTBOT_CHAIN in present
        key = None if is_part or not name.endswith(_SUFFIXES) else key_of(name, present)
        if key is not None:
            found.append(Pair(name, key))
    return found


def key_of(chain: str, names: Collection[str]) -> str | None:
    """The file among *names* that holds the private key of the certificate *chain*; None where there is none."""
    if chain == _CERTBOT_CHAIN and _CERTBOT_KEY in names:
        return _CERTBOT_KEY
    stem = chain.rpartition(".")[0]
    return next((name for name in (f"{stem}.key", f"{stem}{_MKCERT_KEY}") if name in names), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate says of itself: the DNS names that it is for, and its time."""

    names: tuple[str, ...]
    starts: datetime
    ends: datetime

    def holds(self, now: datetime) -> bool:
        """Whether clients will believe it at *now*."""
        return self.starts <= now < self.ends


def expiry_warning(certificate: Certificate, now: datetime) -> str | None:
    """What is to be told of its end; None while that is more than 14 days away."""
    left = certificate.ends - now
    if left <= timedelta(0):
        return f"expired on {certificate.ends:%Y-%m-%d}: no client believes it any more; put a new one in its place"
    if left < _SOON:
        days = max(1, round(left / timedelta(days=1)))
        return f"expires on {certificate.ends:%Y-%m-%d}, in {days} day{'s'[: days != 1]}: see to its renewal"
    return None


class NameTable(Generic[T]):
    """
    Which of several certificates answers a name that a client asks for (SNI).

    An exact name comes before a wildcard, which stands for one label; among equals one that holds at *now* comes before
    one that does not, then the first given. Names that none is for get the first of all.
    """

    def __init__(self, entries: Sequence[tuple[Certificate, T]], now: datetime) -> None:
        self._default = entries[0][1]
        self._exact: dict[str, T] = {}
        self._wild: dict[str, T] = {}
        for certificate, value in sorted(entries, key=lambda entry: not entry[0].holds(now)):
            for name in certificate.names:
                plain = _plain(name)
                if plain.startswith("*."):
                    self._wild.setdefault(plain[2:], value)
                else:
                    self._exact.setdefault(plain, value)

    def look(self, name: str | None) -> T:
        """The one for *name*; None is a client that names none."""
        if name is None:
            return self._default
        plain = _plain(name)
        found = self._exact.get(plain)
        if found is None:
            found = self._wild.get(plain.partition(".")[2])
        return self._default if found is None else found


def _plain(name: str) -> str:
    return name.lower().rstrip(".")
