"""No I/O: the URLs of sources, taken apart and checked; what stands in them as a password is never told again."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from gateway.core.errors import SourceError

_MAX_URL_CHARS = 2000
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_SCP = re.compile(r"(?:([A-Za-z0-9._-]+)@)?([A-Za-z0-9.-]+):(?!//)(\S+)")
_PORTS = {"http": 80, "https": 443, "git": 9418, "ssh": 22}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    Where a source is: *url* without user name and password, which are in *login* (``user:password``) where given.

    ``host`` and ``port`` are whom to connect to. For git *ref* is the branch, tag or commit (None: the default branch),
    and *folder* the one of the repository that holds the Actor ("" for the whole).
    """

    url: str
    host: str
    port: int
    login: str | None = None
    ref: str | None = None
    folder: str = ""

    @property
    def scheme(self) -> str:
        """The protocol."""
        return self.url.partition(":")[0]


def archive_place(text: str) -> Place:
    """The place of a tar or zip archive. Raises SourceError."""
    return _place("tarballUrl", text, ("http", "https"))


def git_place(field: str, text: str) -> Place:
    """
    The place of a git repository, ``URL#ref:folder``; also ``user@host:path`` as git itself has it. Raises SourceError.

    E.g. ``https://example.com/a.git#main:actors/first``.
    """
    base, _, fragment = text.strip().partition("#")
    if "://" not in base and (match := _SCP.fullmatch(base)):
        user, host, path = match.groups()
        base = f"ssh://{user or 'git'}@{host}/{path.lstrip('/')}"
    place = _place(field, base, ("https", "http", "ssh", "git"))
    ref, _, folder = fragment.partition(":")
    if ref and (not _REF.fullmatch(ref) or ".." in ref or ref.endswith((".lock", "/", "."))):
        raise SourceError(f"{field}: {ref!r} after the # is no branch, tag or commit.")
    clean = posixpath.normpath(folder.strip("/")) if folder.strip("/") else ""
    if clean in (".", ""):
        clean = ""
    if clean.startswith("../") or clean == ".." or "\0" in clean:
        raise SourceError(f"{field}: the folder {folder!r} after the : leaves the repository.")
    return Place(url=place.url, host=place.host, port=place.port, login=place.login, ref=ref or None, folder=clean)


def _place(field: str, text: str, schemes: tuple[str, ...]) -> Place:
    text = text.strip()
    wanted = f"{field}: a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)} is expected"
    if len(text) > _MAX_URL_CHARS:
        raise SourceError(f"{wanted}, of at most {_MAX_URL_CHARS} characters.")
    if any(character.isspace() or ord(character) < 32 for character in text):
        raise SourceError(f"{wanted}, without spaces.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise SourceError(f"{wanted}; this is none.") from error
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    if parts.scheme not in schemes or not _HOST.fullmatch(shown):
        raise SourceError(f"{wanted}.")
    return Place(
        url=_without_login(parts, shown),
        host=host,
        port=port or _PORTS[parts.scheme],
        login=_login(parts),
    )


def _login(parts: SplitResult) -> str | None:
    if not parts.username and not parts.password:
        return None
    return f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"


def _without_login(parts: SplitResult, host: str) -> str:
    # ssh's user name is part of the address, and no secret.
    user = f"{quote(parts.username)}@" if parts.scheme == "ssh" and parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"{user}{host}{port}", fragment="").geturl()
