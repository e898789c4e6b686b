"""
The data folder: what lies where, who may use it, and the first user with a token to begin with.

    lock              held as long as a server runs on this folder; says which one (process id, address)
    token             the first user's token where none was given, mode 0600
    records.sqlite3   the records
    secret.key        the key of ``gateway.secret_box``

Blobs, logs and launchers name their own folders below it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.auth import ALL_SCOPES
from gateway.core.ids import TOKEN_BYTES, api_token, token_hash, username_problem
from gateway.core.model import Token, User
from gateway.refusals import USAGE, Refused
from gateway.settings import Settings
from gateway.state.ports import Records

GIVEN_TOKEN_NAME = "given at start"  # noqa: S105 - the name of a token, not a token
FILE_TOKEN_NAME = "token file"  # noqa: S105 - likewise

_LOCK_POLL_SECS = 0.05


def lock_path(data: Path) -> Path:
    """The file whose lock says that a server runs on *data*."""
    return data / "lock"


def records_url(data: Path) -> str:
    """The database of the records where no other is set."""
    return f"sqlite+aiosqlite:///{data}/records.sqlite3"


def token_path(settings: Settings) -> Path:
    """Where the first user's token lies when it is not given in a variable."""
    return settings.token_file or settings.data / "token"


def make_data_dir(data: Path) -> None:
    """Make *data*, readable by its owner only; one that is there keeps its mode. Raises Refused."""
    if "?" in str(data):
        raise Refused(
            f"the data folder {data} has a '?' in its path: give another one with --data DIR.", exit_code=USAGE
        )
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"the data folder {data} can't be made ({error.strerror}): give another one with --data DIR.",
            exit_code=USAGE,
        ) from error


@dataclass(frozen=True, slots=True)
class DataLock:
    """The lock of a data folder, held while its *descriptor* is open in any process (server or worker)."""

    descriptor: int

    def describe(self, pid: int, url: str) -> None:
        """Write who holds the lock, for the message to a second server and for commands that look for this one."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{pid}\n{url}\n".encode(), 0)

    def release(self) -> None:
        """Let go in this process, and no longer say who holds it."""
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who last held a data folder's lock; empty where the file says nothing."""

    pid: str = ""
    url: str = ""


def read_holder(data: Path) -> Holder:
    """What the lock file says; the server that it names may be gone."""
    try:
        lines = lock_path(data).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return Holder()
    return Holder(*lines[:2]) if len(lines) <= 2 else Holder()


def take_lock(data: Path, *, wait_secs: float = 2.0) -> DataLock:
    """
    Lock *data* for one server.

    A holder that is just dying (its parent was killed, its worker follows) is waited for, up to *wait_secs*.
    Raises Refused, naming the process that holds it.
    """
    try:
        descriptor = os.open(lock_path(data), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Refused(
            f"the data folder {data} is not writable ({error.strerror}): "
            "mend its permissions, or give another one with --data DIR.",
            exit_code=USAGE,
        ) from error
    until = time.monotonic() + wait_secs
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() >= until:
                os.close(descriptor)
                holder = read_holder(data)
                named = f" (process {holder.pid}{f', {holder.url}' if holder.url else ''})" if holder.pid else ""
                raise Refused(
                    f"another Greenroom{named} serves the data folder {data} already: "
                    "stop it, or give this one a folder of its own with --data DIR."
                ) from error
            time.sleep(_LOCK_POLL_SECS)
        else:
            return DataLock(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstUser:
    """The administrator; ``token_file`` says where his token lies, None where it was given and is not written down."""

    user: User
    token_file: Path | None


async def ensure_first_user(
    records: Records,
    settings: Settings,
    *,
    now: datetime,
    new_id: Callable[[], str],
    random_bytes: Callable[[int], bytes],
) -> FirstUser:
    """
    See to it that the first user exists and that his token works; the same at every start.

    The token is the given one (``GREENROOM_TOKEN``), which is never written down, or that of the token file, which is
    made if absent. Either replaces the token that the same way brought in at an earlier start. Raises Refused.
    """
    user = await _first_user(records, settings.user, now, new_id)
    if settings.token:
        await _register(records, user, GIVEN_TOKEN_NAME, _checked(settings.token, "GREENROOM_TOKEN"), now, new_id)
        return FirstUser(user=user, token_file=None)
    path = token_path(settings)
    token = read_token(path)
    if token is None:
        token = api_token(random_bytes(TOKEN_BYTES))
        _write_token(path, token)
    await _register(records, user, FILE_TOKEN_NAME, token, now, new_id)
    return FirstUser(user=user, token_file=path)


def new_user(username: str, *, is_admin: bool, now: datetime, user_id: str) -> User:
    """A user record. Raises Refused where *username* is none."""
    problem = username_problem(username)
    if problem is not None:
        raise Refused(f"{username!r} is no user name: {problem}.", exit_code=USAGE)
    return User(id=user_id, username=username, is_admin=is_admin, created_at=now)


async def _first_user(records: Records, username: str, now: datetime, new_id: Callable[[], str]) -> User:
    user = await records.user_by_name(username)
    if user is None:
        user = new_user(username, is_admin=True, now=now, user_id=new_id())
        await records.add_user(user)
    if not user.is_admin:
        raise Refused(
            f"the user {user.username!r} exists and is no administrator: name the administrator with --user NAME.",
            exit_code=USAGE,
        )
    return user


async def _register(
    records: Records, user: User, name: str, token: str, now: datetime, new_id: Callable[[], str]
) -> None:
    hashed = token_hash(token)
    known = await records.token_by_hash(hashed)
    if known is not None:
        if known.user_id == user.id and known.expires_at is None and ALL_SCOPES in known.scopes:
            return
        # Of another --user at an earlier start, or with less than the first user's rights: now it is the first user's.
        await records.delete_token(known.id)
    for older in await records.list_tokens(user.id):
        if older.name == name:
            await records.delete_token(older.id)
    await records.add_token(
        Token(
            id=new_id(),
            user_id=user.id,
            name=name,
            token_hash=hashed,
            scopes=frozenset({ALL_SCOPES}),
            created_at=now,
        )
    )


def _checked(token: str, source: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Refused(f"the token in {source} holds blanks or other than printable ASCII characters.", exit_code=USAGE)
    return token


def read_token(path: Path) -> str | None:
    """The token in the file *path*, None where there is no such file. Raises Refused where it can't be read."""
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the token file {path} can't be read: {error}.", exit_code=USAGE) from error
    if not token:
        raise Refused(
            f"the token file {path} is empty: put a token into it, or delete it to have one made.", exit_code=USAGE
        )
    return _checked(token, str(path))


def _write_token(path: Path, token: str) -> None:
    """Write the file as a whole or not at all; its mode is 0600 before the token is in it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        raise Refused(f"the token file {path} can't be written ({error.strerror}).", exit_code=USAGE) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
