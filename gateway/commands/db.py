"""``greenroom db``: bring the records up to date, and move a whole Greenroom from one kind of store to another."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from gateway.core.dump_format import BadDump, End, Manifest
from gateway.core.errors import InvalidRequest
from gateway.core.times import iso
from gateway.data_dir import make_data_dir, records_place, take_lock
from gateway.dump_file import DumpReader, DumpWriter, whole_file
from gateway.refusals import USAGE, Refused
from gateway.secret_box import SecretBox
from gateway.settings import Settings
from gateway.state.blobs import ObjectBlobs, open_blob_store, open_blobs
from gateway.state.database import Database, open_database
from gateway.state.dump import export_rows, import_rows, is_empty
from gateway.state.migrations.upgrade import HEAD
from gateway.state.ports import StateUnavailable
from gateway.store_urls import masked

_KEY_VARIABLE = "GREENROOM_SECRET_KEY"
_TELL_SECS = 2.0
_SMALL_BYTES = 1024 * 1024  # blobs up to this size are put side by side
_AT_ONCE = 8


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Perform a ``db`` verb; the exit code. Raises Refused."""
    make_data_dir(settings.data)
    try:
        match arguments.words:
            case "db migrate":
                asyncio.run(_migrate(settings))
            case "db export":
                with _alone(settings.data):
                    asyncio.run(_export(settings, arguments.file, with_key=arguments.with_key))
            case _:
                with _alone(settings.data):
                    asyncio.run(_import(settings, arguments.file, other_key=arguments.other_key))
    except (StateUnavailable, InvalidRequest) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"{getattr(arguments, 'file', settings.data)}: {error.strerror or error}.") from error
    return 0


async def _migrate(settings: Settings) -> None:
    async with open_database(records_place(settings), is_migrated=False) as database:
        before = await database.revision()
        await database.migrate()
    if before == HEAD:
        _say(f"the records stand at migration {HEAD}: nothing was to be done.")
    elif before is None:
        _say(f"the records were made, at migration {HEAD}.")
    else:
        _say(f"the records stood at migration {before} and stand at {HEAD} now.")


# Export


async def _export(settings: Settings, path: Path, *, with_key: bool) -> None:
    try:
        # As it stands: a newer program that only looks must not change what older ones are serving from.
        async with open_database(records_place(settings), is_migrated=False) as database:
            await _refuse_others(database)
            await _refuse_other_schema(settings, database)
            manifest = _manifest(settings.data, with_key=with_key)
            with whole_file(path) as file:
                writer = DumpWriter(file, manifest)
                await _export_blobs(_open_blobs(settings), writer)
                progress = _Progress("rows")

                def take(table: str, rows: list[dict[str, object]]) -> None:
                    try:
                        writer.add_rows(table, rows)
                    except OSError as error:  # in there, it would pass for one of the database
                        raise Refused(f"{path} can't be written: {error.strerror or error}.") from error
                    progress.add(len(rows))

                await export_rows(database, take)  # type: ignore[arg-type]  # a list is a sequence
                end = writer.end()
    except FileExistsError as error:
        raise Refused(f"{path} is there already: name another file, or remove it.", exit_code=USAGE) from error
    _tell(end, f"written to {path}")
    if not with_key:
        _say(
            "secrets are sealed in it, and their key is not there: take secret.key along, or "
            f"{_KEY_VARIABLE}, or export --with-key. The token file stays behind, too."
        )


async def _export_blobs(blobs: ObjectBlobs, writer: DumpWriter) -> None:
    progress = _Progress("blobs")
    async for key in blobs.all_keys():
        size, chunks = await blobs.size(key), await blobs.open(key)
        if size is None or chunks is None:
            raise BadDump(f"The blob {key} went away while it was read: is a Greenroom running on it?")
        await writer.add_blob(key, size, chunks)
        progress.add(1)


async def _refuse_other_schema(settings: Settings, database: Database) -> None:
    at = await database.revision()
    if at is not None and at != HEAD:
        raise Refused(
            f"the records in {_place(settings)} stand at migration {at}, and this Greenroom's at {HEAD}: export them "
            "with the Greenroom that served them, or bring them up to this one with 'greenroom db migrate' first."
        )
    if at is None or await is_empty(database):
        raise Refused(f"there is nothing to export: the records in {_place(settings)} are empty.")


def _manifest(data: Path, *, with_key: bool) -> Manifest:
    """Raises Refused where the key is not there: a new one would open none of the secrets."""
    is_given = bool(os.environ.get(_KEY_VARIABLE))
    if with_key and is_given:
        raise Refused(f"the key comes from {_KEY_VARIABLE}: give it to the other Greenroom likewise.", exit_code=USAGE)
    if not is_given and not (data / "secret.key").exists():
        raise Refused(
            f"the key that the secrets are sealed with is not there: {data} has no secret.key, and {_KEY_VARIABLE} is "
            "not set. Name the data folder of the Greenroom that served these records, or set the variable as it did."
        )
    return Manifest(
        schema=HEAD,
        made_at=iso(datetime.now(UTC)),
        greenroom=version("greenroom"),
        key_check=_key_check(data),
        secret_key=base64.b64encode((data / "secret.key").read_bytes()).decode() if with_key else None,
    )


# Import


async def _import(settings: Settings, path: Path, *, other_key: bool) -> None:
    with path.open("rb") as file:
        reader = DumpReader(file)
        if reader.manifest.schema != HEAD:
            raise Refused(
                f"{path} holds records of migration {reader.manifest.schema}, and this Greenroom's stand at {HEAD}: "
                f"import it with the Greenroom that wrote it ({reader.manifest.greenroom}), and migrate then."
            )
        async with open_database(records_place(settings), is_migrated=False) as database:
            await _refuse_others(database)
            blobs = _open_blobs(settings)
            await _refuse_full(settings, database, blobs)
            with _key_in_place(settings.data, reader.manifest, other_key=other_key):
                await database.migrate()
                put: list[str] = []
                try:
                    await _import_blobs(reader, blobs, put)
                    progress = _Progress("rows")
                    mended = await import_rows(database, reader.rows(), lambda _, number: progress.add(number))
                except BaseException:
                    # Nothing names them, and another try would find the place full.
                    _say("the import failed; what it has brought in is removed again.")
                    for key in put:
                        with contextlib.suppress(StateUnavailable):
                            await blobs.delete(key)
                    raise
    assert reader.end is not None
    _tell(reader.end, f"brought into {_place(settings)}")
    if mended:
        _say(f"{mended} texts or numbers that this database can't hold were mended: a character 0 is U+FFFD, NaN null.")


async def _import_blobs(reader: DumpReader, blobs: ObjectBlobs, put: list[str]) -> None:
    """Large ones as streams, small ones side by side: each waits for its disk or server."""
    progress = _Progress("blobs")
    small: dict[str, bytes] = {}

    async def put_small() -> None:
        async with asyncio.TaskGroup() as group:
            for key, value in small.items():
                group.create_task(blobs.put(key, value))
        progress.add(len(small))
        small.clear()

    try:
        for key, size, blocks in reader.blobs():
            put.append(key)
            if size > _SMALL_BYTES:
                await blobs.put(key, _stream(blocks))
                progress.add(1)
                continue
            small[key] = b"".join(blocks)
            if len(small) == _AT_ONCE:
                await put_small()
        await put_small()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


async def _stream(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def _refuse_full(settings: Settings, database: Database, blobs: ObjectBlobs) -> None:
    at = await database.revision()
    if at is not None and at != HEAD:
        raise Refused(
            f"the records in {_place(settings)} stand at migration {at}, and this Greenroom's at {HEAD}: import into a "
            "fresh data folder or database, or, where they are empty, run 'greenroom db migrate' first."
        )
    if at is not None and not await is_empty(database):
        raise Refused(
            f"the records in {_place(settings)} are not empty: import before the first 'greenroom serve' there, "
            "into a fresh data folder or database."
        )
    async for key in blobs.all_keys():
        raise Refused(
            f"there are blobs already where the import would put its own, such as {key}: of another Greenroom, or of "
            "an import that was broken off. Give it an empty folder, bucket or prefix."
        )


@contextlib.contextmanager
def _key_in_place(data: Path, manifest: Manifest, *, other_key: bool) -> Iterator[None]:
    """See to it that what was sealed can be opened; a key that came with the dump goes again if the import fails."""
    path = data / "secret.key"
    is_new = not os.environ.get(_KEY_VARIABLE) and not path.exists()
    if is_new and manifest.secret_key is not None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(base64.b64decode(manifest.secret_key))
            file.flush()
            os.fsync(file.fileno())
    elif is_new and not other_key:
        raise Refused(
            f"the secrets in it were sealed with a key that {data} does not have: copy that Greenroom's secret.key "
            f"there (mode 0600) or set {_KEY_VARIABLE}, or export --with-key. With --other-key they are lost."
        )
    try:
        if not other_key and _key_check(data) != manifest.key_check:
            raise Refused(
                f"the secrets in it were sealed with another key than that of {data} (secret.key or {_KEY_VARIABLE}): "
                "bring the right one there. With --other-key the import goes on, and they are lost."
            )
        yield
    except BaseException:
        if is_new:
            path.unlink(missing_ok=True)
        raise


# Both


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """No server may run on the data folder meanwhile. Raises Refused where one does."""
    lock = take_lock(data)
    try:
        yield
    finally:
        lock.release()


async def _refuse_others(database: Database) -> None:
    others = await database.others()
    if others:
        raise Refused(f"other processes use the records ({', '.join(others)}): stop all of them first.")


def _open_blobs(settings: Settings) -> ObjectBlobs:
    return open_blobs(settings.data / "blobs") if settings.blobs_url is None else open_blob_store(settings.blobs_url)


def _key_check(data: Path) -> str:
    """Tells two keys apart and nothing else."""
    return SecretBox.from_data_dir(data).derive("db export", "check of the key")


def _place(settings: Settings) -> str:
    return masked(settings.records_url) if settings.records_url else str(settings.data)


class _Progress:
    """Tells how far it is, now and then."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._clock = what, clock
        self._number, self._told_at = 0, clock()

    def add(self, number: int) -> None:
        """So many more are done."""
        self._number += number
        if self._clock() - self._told_at >= _TELL_SECS:
            self._told_at = self._clock()
            _say(f"{self._number:,} {self._what} ...")


def _tell(end: End, what: str) -> None:
    held = ", ".join(f"{table.replace('_', ' ')} {number:,}" for table, number in end.rows.items() if number)
    _say(f"{what}: {held}, blobs {end.blobs:,}.")


def _say(text: str) -> None:
    print(f"greenroom: {text}", file=sys.stderr, flush=True)
