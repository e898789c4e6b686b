"""
The data folder: what lies where, who may use it, and the first user with a token to begin with.

    lock              held as long as a server runs on this folder; says which one (process id, address)
    gateways/<n>/lock held likewise by each 'greenroom gateway'; these and autoscalers share the one above
    token             the first user's token where none was given, mode 0600
    records.sqlite3   the records
    secret.key        the key of ``gateway.secret_box``

Blobs, logs and launchers name their own folders below it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.auth import ALL_SCOPES
from gateway.core.errors import NameNotUnique
from gateway.core.ids import TOKEN_BYTES, api_token, token_hash, username_problem
from gateway.core.model import Token, User
from gateway.refusals import USAGE, Refused
from gateway.settings import Settings
from gateway.state.ports import Records

GIVEN_TOKEN_NAME = "given at start"  # noqa: S105 - the name of a token, not a token
FILE_TOKEN_NAME = "token file"  # noqa: S105 - likewise

_LOCK_POLL_SECS = 0.05
_KILLED_SECS = 15.0  # a worker that is just being started looks for its parent late on a busy machine
_MOST_GATEWAYS = 100


def lock_path(data: Path) -> Path:
    """The file whose lock says that a server runs on *data*."""
    return data / "lock"


def records_url(data: Path) -> str:
    """The database of the records where no other is set."""
    return f"sqlite+aiosqlite:///{data}/records.sqlite3"


def records_place(settings: Settings) -> str:
    """The database of the records, as the settings say."""
    return settings.records_url or records_url(settings.data)


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
    """
    The lock in *folder*, held while its *descriptor* is open in any process (server or worker).

    *folder* is the data folder, or the part of it that one of several gateways has to itself; *shared* is the lock of
    the data folder then, which they hold together.
    """

    descriptor: int
    folder: Path
    shared: int | None = None

    def describe(self, pid: int, url: str) -> None:
        """Write who holds the lock, for the message to a second server and for commands that look for this one."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{pid}\n{url}\n".encode(), 0)

    def release(self) -> None:
        """Let go in this process, and no longer say who holds it."""
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)
        if self.shared is not None:
            os.close(self.shared)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who last held a data folder's lock; empty where the file says nothing."""

    pid: str = ""
    url: str = ""


def read_holder(data: Path) -> Holder:
    """What the lock file in *data* says; the server that it names may be gone."""
    try:
        lines = lock_path(data).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return Holder()
    return Holder(*lines[:2]) if len(lines) <= 2 else Holder()


def live_holder(folder: Path) -> Holder | None:
    """Who holds the lock in *folder* for himself at this moment."""
    try:
        descriptor = os.open(lock_path(folder), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return read_holder(folder)
    finally:
        os.close(descriptor)
    return None


def gateway_folders(data: Path) -> list[Path]:
    """What gateways have, or had, to themselves in *data*."""
    return sorted((folder for folder in (data / "gateways").glob("*") if folder.name.isdecimal()), key=_number)


def server_url(data: Path) -> str:
    """Where a server on *data* answers, of several gateways the first; empty where none says so."""
    found = read_holder(data).url
    if found:
        return found
    holders = (live_holder(folder) for folder in gateway_folders(data))
    return next((holder.url for holder in holders if holder is not None and holder.url), "")


def take_lock(data: Path, *, wait_secs: float = 2.0) -> DataLock:
    """
    Lock *data* for one server.

    A holder that is just ending is waited for, up to *wait_secs*; one that was killed, whose worker follows it sooner
    or later, for longer. Raises Refused, naming the process that holds it.
    """
    descriptor = _open_lock(data)
    is_taken = _flock(descriptor, fcntl.LOCK_EX, wait_secs)
    if not is_taken and _is_gone(read_holder(data).pid):
        is_taken = _flock(descriptor, fcntl.LOCK_EX, _KILLED_SECS)
    if not is_taken:
        is_shared = _flock(descriptor, fcntl.LOCK_SH, 0)
        os.close(descriptor)
        holder = read_holder(data)
        named = f" (process {holder.pid}{f', {holder.url}' if holder.url else ''})" if holder.pid else ""
        raise Refused(
            f"processes of 'greenroom gateway' or 'greenroom autoscaler' have the data folder {data}: "
            "stop them, or give this one a folder of its own with --data DIR."
            if is_shared
            else f"another Greenroom{named} serves the data folder {data} already: "
            "stop it, or give this one a folder of its own with --data DIR."
        )
    return DataLock(descriptor, data)


def take_shared_lock(data: Path, *, wait_secs: float = 2.0) -> int:
    """Lock *data* together with other gateways and autoscalers; the descriptor that holds it. Raises Refused."""
    descriptor = _open_lock(data)
    if not _flock(descriptor, fcntl.LOCK_SH, wait_secs):
        os.close(descriptor)
        holder = read_holder(data)
        raise Refused(
            f"'greenroom serve' (process {holder.pid or 'unknown'}) has the data folder {data} to itself: "
            "stop it, or give this one a folder of its own with --data DIR."
        )
    os.ftruncate(descriptor, 0)  # whoever had it to himself has ended, maybe without a word
    return descriptor


def take_gateway_lock(data: Path, *, wait_secs: float = 2.0) -> DataLock:
    """One of several gateways on *data*: it shares the folder and has a part of it to itself. Raises Refused."""
    shared = take_shared_lock(data, wait_secs=wait_secs)
    for number in range(1, _MOST_GATEWAYS + 1):
        folder = data / "gateways" / str(number)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _open_lock(folder)
        if _flock(descriptor, fcntl.LOCK_EX, 0):
            return DataLock(descriptor, folder, shared)
        os.close(descriptor)
    os.close(shared)
    raise Refused(f"{_MOST_GATEWAYS} gateways have the data folder {data}: give this one another, with --data DIR.")


def _open_lock(folder: Path) -> int:
    try:
        return os.open(lock_path(folder), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Refused(
            f"the data folder {folder} is not writable ({error.strerror}): "
            "mend its permissions, or give another one with --data DIR.",
            exit_code=USAGE,
        ) from error


def _is_gone(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        pass
    return False


def _flock(descriptor: int, kind: int, wait_secs: float) -> bool:
    until = time.monotonic() + wait_secs
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(_LOCK_POLL_SECS)
        else:
            return True


def _number(folder: Path) -> int:
    return int(folder.name)


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
        _write_token(path, api_token(random_bytes(TOKEN_BYTES)))
        token = read_token(path)  # of several processes that start at once, one writes it
        assert token is not None
    # Where records are shared, each data folder may have a token of its own.
    name = f"{FILE_TOKEN_NAME} of {socket.gethostname()}:{path}"[:100] if settings.records_url else FILE_TOKEN_NAME
    await _register(records, user, name, token, now, new_id)
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
        try:
            await records.add_user(user)
        except NameNotUnique:  # another process that starts at the same time was faster
            user = await records.user_by_name(username) or user
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
    with contextlib.suppress(NameNotUnique):  # another process that starts at the same time was faster
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
    """
    Write the file as a whole or not at all, unless there is one by now; its mode is 0600 before the token is in it.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
    except OSError as error:
        raise Refused(f"the token file {path} can't be written ({error.strerror}).", exit_code=USAGE) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
