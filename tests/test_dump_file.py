"""Archives of a whole Greenroom: what is written is read, and whatever was damaged is told."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import dump_file
from gateway.core.dump_format import BadDump, End, Manifest, load_manifest
from gateway.dump_file import DumpReader, DumpWriter, whole_file

MANIFEST = Manifest(schema="0004", made_at="2026-01-02T03:04:05.678Z", greenroom="0.1.0", key_check="abc")
Blobs = dict[str, bytes]
Rows = list[tuple[str, dict[str, Any]]]


async def chunks_of(value: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(value), size):
        yield value[start : start + size]


async def written(blobs: Blobs, rows: Rows, manifest: Manifest = MANIFEST) -> bytes:
    """An archive of these."""
    file = io.BytesIO()
    writer = DumpWriter(file, manifest)
    for key, value in blobs.items():
        await writer.add_blob(key, len(value), chunks_of(value, 1000))
    for table, row in rows:
        writer.add_rows(table, [row])
    writer.end()
    return file.getvalue()


def read(content: bytes) -> tuple[Manifest, Blobs, Rows, End | None]:
    """All that is in an archive."""
    reader = DumpReader(io.BytesIO(content))
    blobs = {key: b"".join(blocks) for key, size, blocks in reader.blobs()}
    rows = list(reader.rows())
    return reader.manifest, blobs, rows, reader.end


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.text("abcXYZ019._-/", min_size=1, max_size=300)


@given(
    blobs=st.dictionaries(KEYS, st.binary(max_size=5000), max_size=4),
    users=st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=5),
    runs=st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=5),
)
async def test_what_is_written_is_read(blobs: Blobs, users: list[dict[str, Any]], runs: list[dict[str, Any]]):
    """Each blob byte by byte, each row value by value, in their order, and how many there were."""
    rows: Rows = [("users", row) for row in users] + [("runs", row) for row in runs]
    manifest, found, read_rows, end = read(await written(blobs, rows))
    assert (manifest, found, read_rows) == (MANIFEST, blobs, rows)
    assert end is not None
    assert end.blobs == len(blobs)
    assert end.rows == {table: len(some) for table, some in (("users", users), ("runs", runs)) if some}


async def test_many_rows_become_several_members(monkeypatch: pytest.MonkeyPatch):
    """No member grows beyond its bound, so neither side needs memory for a whole table."""
    monkeypatch.setattr(dump_file, "_PART_BYTES", 1000)
    rows: Rows = [("users", {"n": number, "text": "x" * 90}) for number in range(100)]
    content = await written({}, rows)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        sizes = [member.size for member in tar if member.name.startswith("tables/")]
    assert len(sizes) > 5
    assert max(sizes) < 1200
    assert read(content)[2] == rows


async def test_every_archive_that_is_cut_off_is_refused():
    """At whatever place: a whole file and no less."""
    content = await written({"logs/a": b"x" * 3000}, [("users", {"id": "u"}), ("runs", {"id": "r"})])
    end = content.rindex(b"}") + 1
    for length in [*range(0, end, 101), end - 1]:
        with pytest.raises(BadDump):
            read(content[:length])


async def test_every_changed_byte_of_contents_is_found():
    """The check at the end covers blobs, rows and manifest, whatever they say now."""
    content = await written({"logs/a": b"log of a run"}, [("users", {"username": "jane"})])
    for word in (b"log of", b"jane", b"2026"):
        at = content.index(word)
        with pytest.raises(BadDump, match="damaged"):
            read(content[:at] + b"X" + content[at + 1 :])


def archive(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    """An archive that nobody's export has written."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def manifest(**changes: Any) -> bytes:
    stored = {"schema": "0004", "made_at": "x", "greenroom": "0.1", "key_check": "c", "secret_key": None, "format": 1}
    return json.dumps({**stored, **changes}).encode()


M, E = "greenroom.json", "end.json"
LINE = b'{"id": "u"}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "no archive", id="empty"),
        pytest.param(b"no archive at all " * 100, "no archive", id="something else"),
        pytest.param(archive(("other.txt", b"x")), "no archive", id="another archive"),
        pytest.param(archive((M, b"{")), "damaged", id="no JSON"),
        pytest.param(archive((M, b"[" * 100_000)), "damaged", id="deep JSON"),
        pytest.param(archive((M, b"[]")), "damaged", id="no object"),
        pytest.param(archive((M, b" " * 2_000_000)), "too long", id="long manifest"),
        pytest.param(archive((M, manifest(format=2))), "format 2", id="newer format"),
        pytest.param(archive((M, manifest(schema=4))), "lacks", id="wrong type"),
        pytest.param(archive((M, manifest(secret_key="no base64"))), "lacks", id="no key"),
        pytest.param(archive((M, manifest())), "without end.json", id="no end"),
        pytest.param(archive((M, manifest()), (E, b"{}")), "lacks", id="empty end"),
        pytest.param(archive((M, manifest()), ("../../etc/passwd", b"x")), "does not belong", id="a path"),
        pytest.param(archive((M, manifest()), ("tables/users/1.jsonl", LINE)), "does not belong", id="a part's name"),
        pytest.param(
            archive((M, manifest()), ("tables/users/000000.jsonl", b"{")), "middle of a line", id="half a line"
        ),
        pytest.param(archive((M, manifest()), ("tables/users/000000.jsonl", b"3\n")), "damaged", id="no row"),
        pytest.param(
            archive((M, manifest()), ("tables/users/000000.jsonl", LINE), ("blobs/a", b"x")),
            "does not belong",
            id="a blob after rows",
        ),
        pytest.param(
            archive((M, manifest()), (E, b'{"sha256": "0", "blobs": 0, "rows": {}}')), "damaged", id="another digest"
        ),
        pytest.param(archive((M, b""), kind=tarfile.SYMTYPE), "no plain file", id="a link"),
    ],
)
def test_what_is_no_archive(content: bytes, words: str):
    """It is told in words, and never as an error of the library."""
    with pytest.raises(BadDump, match=words):
        read(content)


@pytest.mark.parametrize("size", [5, 20], ids=["longer than told", "shorter than told"])
async def test_a_blob_that_changes_is_told(size: int):
    """An export beside a server that writes would not be whole."""
    writer = DumpWriter(io.BytesIO(), MANIFEST)
    with pytest.raises(BadDump, match="changed while it was read"):
        await writer.add_blob("a", size, chunks_of(b"0123456789", 4))


def test_an_export_that_fails_says_no_more(tmp_path: Path):
    """An archive that is given up is closed as it is: nothing is written to it any more."""
    path = tmp_path / "dump.tar"

    def fail() -> None:
        with whole_file(path) as file:
            writer = DumpWriter(file, MANIFEST)
            writer.add_rows("users", [{"id": "u"}])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    gc.collect()  # a warning of the library's would be an error here
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_whole_or_not_there(tmp_path: Path):
    """What fails in the middle leaves nothing; what is there already is left alone; only its owner may read it."""
    path = tmp_path / "dump.tar"

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError), whole_file(path):
        pass
    assert path.read_bytes() == b"whole"


def test_a_key_in_the_manifest():
    """It comes back as it was given."""
    assert load_manifest(manifest(secret_key="a2V5")).secret_key == "a2V5"
