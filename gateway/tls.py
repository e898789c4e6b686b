"""
The certificates of the TLS port: read, chosen by name, and read again when their files change.

Connections that stand keep what they were opened with; a new file serves from the next handshake on. A file that can't
be used keeps what it was to replace in service, and the log says what to do.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from gateway.refusals import Refused
from gateway.tls_names import Certificate, NameTable, expiry_warning, key_of, pairs_among

LOOK_EVERY_SECS = 2.0
_TELL_EXPIRY_EVERY = timedelta(days=1)

_log = logging.getLogger(__name__)

# Of one file: when it changed, how long it is, and which one it is, since links are put in another's place.
_Stamp = tuple[int, int, int] | None


class _Unusable(Exception):
    """A certificate that can't be served with; the message says what to do."""


@dataclass(frozen=True, slots=True)
class _Files:
    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class _Loaded:
    certificate: Certificate
    context: ssl.SSLContext


class Certificates:
    """
    Those in *paths*, folders or files as ``gateway.settings`` tells, for one listening server (``context``).

    Raises Refused where there is none that can be used. *now* is the wall clock, aware.
    """

    def __init__(self, paths: Sequence[Path], *, http2: bool, now: Callable[[], datetime]) -> None:
        self._paths = paths
        self._protocols = ["h2", "http/1.1"] if http2 else ["http/1.1"]
        self._now = now
        self._loaded: dict[_Files, _Loaded] = {}
        self._failed: frozenset[str] = frozenset()
        self._told: frozenset[str] = frozenset()
        self._missing: frozenset[_Files] = frozenset()
        self._modes_told: set[tuple[Path, int]] = set()
        self._expiry_told_at: datetime | None = None
        self._stamps = self._stamps_of(files := self._files())
        problems = self._load(files)
        if not self._loaded:
            raise Refused(*(problems or [self._none_found()]))
        for problem in problems:
            _log.error("tls: %s", problem)
        self._told = self._failed = frozenset(problems)
        self._table = self._new_table()
        self.context = self._new_context()
        # Called for each handshake, also for those that name no host: the context itself has no certificate.
        self.context.sni_callback = self._choose
        self._tell_expiry()

    @property
    def is_stale(self) -> bool:
        """Whether a file can't be used, so that an older certificate, or none, serves in its place."""
        return bool(self._failed)

    @property
    def first_expiry(self) -> datetime:
        """When the first of those that serve ends."""
        return min(one.certificate.ends for one in self._loaded.values())

    async def follow(self) -> None:
        """Look at the files every two seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_SECS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """
        Take over what has changed in the files.

        What can't be used is told, and what is gone given up, when it is found so a second time: the two files of a
        certificate are seldom replaced in the same moment.
        """
        files = self._files()
        stamps = self._stamps_of(files)
        if stamps != self._stamps or self._failed or self._missing:
            self._stamps = stamps
            self._take_over(files)
        self._tell_expiry()

    def _take_over(self, files: list[_Files]) -> None:
        problems = frozenset(self._load(files)) if files else frozenset({self._none_found()})
        for problem in sorted(problems & self._failed - self._told):
            _log.error("tls: %s. What served before goes on.", problem)
        self._told = problems & (self._told | self._failed)
        self._failed = problems
        self._table = self._new_table()

    def _load(self, files: list[_Files]) -> list[str]:
        """Read all of *files* anew; what they were before stays for those that can't be used: the reasons for these."""
        missing = frozenset(self._loaded) - frozenset(files)
        loaded = {pair: one for pair, one in self._loaded.items() if pair in missing - self._missing}
        self._missing, problems = missing & frozenset(loaded), []
        for pair in files:
            try:
                loaded[pair] = self._read(pair)
            except _Unusable as error:
                problems.append(str(error))
                if pair in self._loaded:
                    loaded[pair] = self._loaded[pair]
        if loaded:
            if self._loaded and not problems:
                _log.info("tls: certificates were read anew", extra={"certificates": len(loaded)})
            # In the order in which they were found first: the first of all serves the names that none is for.
            self._loaded = {pair: loaded[pair] for pair in dict.fromkeys([*self._loaded, *files]) if pair in loaded}
        return problems

    def _read(self, files: _Files) -> _Loaded:
        context = self._new_context()
        try:
            chain = x509.load_pem_x509_certificates(files.chain.read_bytes())
        except OSError as error:
            raise _Unusable(f"{files.chain} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise _Unusable(f"{files.chain} holds no certificate in PEM form: {error}") from error
        no_password = _NoPassword()
        try:
            context.load_cert_chain(files.chain, files.key, password=no_password)
            self._warn_of_mode(files.key)
        except ssl.SSLError as error:
            raise _Unusable(_why_not(files, error, wants_password=no_password.was_asked)) from error
        except OSError as error:
            raise _Unusable(f"{files.key} can't be read: {error.strerror}") from error
        leaf = chain[0]
        facts = Certificate(names=_names_in(leaf), starts=leaf.not_valid_before_utc, ends=leaf.not_valid_after_utc)
        return _Loaded(facts, context)

    def _warn_of_mode(self, key: Path) -> None:
        mode = key.stat().st_mode & 0o777
        if mode & 0o077 and (key, mode) not in self._modes_told:
            self._modes_told.add((key, mode))
            _log.warning("tls: the private key %s may be read by others (mode %04o): chmod 600 it", key, mode)

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(self._protocols)
        return context

    def _new_table(self) -> NameTable[ssl.SSLContext]:
        return NameTable([(one.certificate, one.context) for one in self._loaded.values()], self._now())

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._table.look(name)

    def _files(self) -> list[_Files]:
        found: dict[_Files, None] = {}
        for path in self._paths:
            found |= dict.fromkeys(_files_at(path))
        return list(found)

    @staticmethod
    def _stamps_of(files: list[_Files]) -> dict[Path, _Stamp]:
        return {path: _stamp(path) for pair in files for path in (pair.chain, pair.key)}

    def _none_found(self) -> str:
        places = ", ".join(map(str, self._paths))
        return f"tls_certificates: there is no certificate with its key in {places}"

    def _tell_expiry(self) -> None:
        now = self._now()
        if self._expiry_told_at is not None and now - self._expiry_told_at < _TELL_EXPIRY_EVERY:
            return
        self._expiry_told_at = now
        for files, one in self._loaded.items():
            if warning := expiry_warning(one.certificate, now):
                _log.warning("tls: the certificate %s %s", files.chain, warning)


def _files_at(path: Path) -> Iterator[_Files]:
    """Of a folder: its certificates, then those of the folders directly in it. Of a file: that one, with its key."""
    if not path.is_dir():
        key = key_of(path.name, _names_of_files(path.parent))
        yield _Files(path, path if key is None else path.parent / key)
        return
    below = sorted(child for child in _children(path) if child.is_dir())
    for folder in (path, *below):
        for pair in pairs_among(_names_of_files(folder)):
            yield _Files(folder / pair.chain, folder / pair.key)


def _names_of_files(folder: Path) -> frozenset[str]:
    return frozenset(child.name for child in _children(folder) if not child.is_dir())


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


class _NoPassword:
    """Asked for a password; else OpenSSL would ask at the terminal."""

    was_asked = False

    def __call__(self) -> str:
        self.was_asked = True
        return ""


def _why_not(files: _Files, error: ssl.SSLError, *, wants_password: bool) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{files.key} is not the key of {files.chain}: put the one there that belongs to it"
    if wants_password:
        return f"{files.key} is protected by a password: give it without one, readable by Greenroom's user alone"
    return f"{files.chain} and {files.key} can't be used: {error.reason or error}"
