"""Source snapshots: the same files have the same name, and no archive reaches beyond its folder."""

from __future__ import annotations

import base64
import gzip
import io
import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actor_files.snapshot import open_archive, pack_folder, pack_source_files, unpack
from gateway.core.errors import DefinitionError, GreenroomError, InvalidRequest, RequestTooLarge


def write(folder: Path, **files: str) -> Path:
    """*files* by name below *folder*; ``__`` stands for a slash."""
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def text_files(**files: str):
    return [{"name": name.replace("__", "/"), "format": "TEXT", "content": content} for name, content in files.items()]


def test_the_name_depends_on_content_only(tmp_path):
    """Neither times, nor owners, nor the order of writing, nor the place, nor the way in change the sha256."""
    one = write(tmp_path / "one", a__b="1", a_b="2", main="3")
    two = write(tmp_path / "two", main="3", a_b="2", a__b="1")
    os.utime(two / "main", (1, 1))
    snapshot = pack_folder(one)
    assert snapshot == pack_folder(two) == pack_source_files(text_files(main="3", a__b="1", a_b="2"))
    assert snapshot.files == ("a/b", "a_b", "main")
    assert pack_folder(write(one, main="4")).sha256 != snapshot.sha256


def test_an_executable_stays_one(tmp_path):
    """Of a file's mode only that it is executable is kept, and it counts for the name."""
    folder = write(tmp_path / "one", run="#!/bin/sh\n", data="x")
    before = pack_folder(folder)
    (folder / "run").chmod(0o700)
    after = pack_folder(folder)
    assert before.sha256 != after.sha256
    assert after == pack_source_files(text_files(run="#!/bin/sh\n", data="x"))
    unpack(after.archive, tmp_path / "out")
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {
        "run": 0o755,
        "data": 0o644,
    }


def test_packing_writes_nothing(tmp_path):
    """The Actor's folder may be read-only, and has the same entries afterwards."""
    folder = write(tmp_path / "one", a__b="1")
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    pack_folder(folder)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


NAMES = st.from_regex(r"[a-zä ]{1,8}(/[a-z]{1,120}){0,3}", fullmatch=True)


@given(files=st.dictionaries(NAMES, st.binary(max_size=200), max_size=6))
def test_what_is_packed_comes_out_again(files):
    """Round trip: names, long and non-ASCII ones too, and contents."""
    given_files = [
        {"name": name, "format": "BASE64", "content": base64.b64encode(content).decode()}
        for name, content in files.items()
    ]
    with open_archive(pack_source_files(given_files).archive) as archive:
        assert dict(archive) == files


def test_unpack_is_open_archive_on_disk(tmp_path):
    """The unpacked folder packs to the same snapshot; a path does as well as bytes."""
    snapshot = pack_folder(write(tmp_path / "one", a__b="1", c="2"))
    (tmp_path / "archive").write_bytes(snapshot.archive)
    unpack(tmp_path / "archive", tmp_path / "out")
    assert pack_folder(tmp_path / "out") == snapshot
    with open_archive(tmp_path / "archive") as archive:
        assert archive["a/b"] == b"1"
        assert "nope" not in archive


def test_what_is_left_out(tmp_path):
    """What tools leave in a folder, and what the ignore files say; ``!`` brings back."""
    folder = write(
        tmp_path / "one",
        **{
            ".git__config": "x",
            "sub__node_modules__x": "x",
            ".venv__x": "x",
            "venv__x": "x",
            "storage__x": "x",
            "apify_storage__x": "x",
            "src__storage__x": "kept: not at the top",
            "main.py": "kept",
            "debug.log": "x",
            "dist__main.js": "kept: brought back",
            "secret.txt": "x",
            ".gitignore": "*.log\ndist/\n.actorignore\n",
            ".actorignore": "!dist/\n/secret.txt\n",
        },
    )
    (folder / "src" / "__pycache__").mkdir(exist_ok=True)
    (folder / "src" / "__pycache__" / "y").touch()
    files = pack_folder(folder).files
    assert {"main.py", "dist/main.js", "src/storage/x", ".gitignore"} <= set(files)
    assert not {"debug.log", "secret.txt", "storage/x", ".actorignore"} & set(files)
    assert not [name for name in files if "node_modules" in name or "venv" in name or "__pycache__" in name]


def test_links_inside_are_packed_as_what_they_point_to(tmp_path):
    """A link to a file or a folder of the same Actor is a copy of it."""
    folder = write(tmp_path / "one", shared__a="1")
    (folder / "link").symlink_to("shared/a")
    (folder / "again").symlink_to("shared")
    assert pack_folder(folder).files == ("again/a", "link", "shared/a")


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        pytest.param("../outside", "leaves the Actor's folder", id="outside"),
        pytest.param("/etc/passwd", "leaves the Actor's folder", id="absolute"),
        pytest.param("nowhere", "points to nothing", id="dangling"),
        pytest.param("link", "points to nothing", id="to itself"),
        pytest.param(".", "leads back", id="loop"),
    ],
)
def test_links_that_cannot_be_packed(tmp_path, target, problem):
    """They are refused by name, not followed and not left out in silence."""
    (tmp_path / "outside").write_text("secret")
    folder = write(tmp_path / "one", a="1")
    (folder / "link").symlink_to(target)
    with pytest.raises(DefinitionError, match=f"^link: .*{problem}"):
        pack_folder(folder)


def test_sockets_are_refused(tmp_path, monkeypatch):
    """What has no content to pack is named."""
    folder = write(tmp_path / "one", a="1")
    monkeypatch.chdir(folder)  # the path of a Unix socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(DefinitionError, match=r"^socket: .*not a socket"):
            pack_folder(folder)


def test_a_folder_that_is_not_there(tmp_path):
    """One clear error."""
    with pytest.raises(DefinitionError, match=r"nope: can't be read: No such file"):
        pack_folder(tmp_path / "nope")


def test_too_large_a_folder(tmp_path):
    """The error says how to make it smaller."""
    with pytest.raises(RequestTooLarge, match=r"\.actorignore"):
        pack_folder(write(tmp_path / "one", a="x" * 1000), max_bytes=999)


@pytest.mark.parametrize(
    ("given_file", "problem"),
    [
        pytest.param("x", "[0] is an object", id="no object"),
        pytest.param({"content": ""}, "[0].name is a relative path", id="no name"),
        pytest.param({"name": "../x", "content": ""}, "[0].name", id="dot dot"),
        pytest.param({"name": "/x", "content": ""}, "[0].name", id="absolute"),
        pytest.param({"name": "a/../../x", "content": ""}, "[0].name", id="dot dot inside"),
        pytest.param({"name": "a\\b", "content": ""}, "[0].name", id="backslash"),
        pytest.param({"name": ".", "content": ""}, "[0].name", id="the folder itself"),
        pytest.param({"name": "x", "content": 1}, "[0].content is a text", id="content"),
        pytest.param({"name": "x", "format": "HEX", "content": ""}, "[0].format is TEXT or BASE64", id="format"),
        pytest.param({"name": "x", "format": "BASE64", "content": "%"}, "[0].content is not Base64", id="base64"),
    ],
)
def test_source_files_are_checked(given_file, problem):
    """A mistake names its place in the array."""
    with pytest.raises(InvalidRequest) as caught:
        pack_source_files([given_file])
    assert f"sourceFiles{problem}" in caught.value.message


def test_source_files_may_have_folders_but_no_twins():
    """Folder entries are taken and have no content; two files of one name are not."""
    assert pack_source_files([{"name": "src", "folder": True}, {"name": "./src/a", "content": "1"}]).files == ("src/a",)
    with pytest.raises(InvalidRequest, match="twice"):
        pack_source_files([{"name": "a", "content": "1"}, {"name": "./a", "content": "2"}])


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param([(member("/tmp/x"), b"1")], id="absolute"),
        pytest.param([(member("../x"), b"1")], id="dot dot"),
        pytest.param([(member("a/../../x"), b"1")], id="dot dot inside"),
        pytest.param([(member("a", tarfile.SYMTYPE, "/etc"), b""), (member("a/passwd"), b"1")], id="through a link"),
        pytest.param([(member("a", tarfile.LNKTYPE, "/etc/passwd"), b"")], id="hard link"),
        pytest.param([(member("a", tarfile.CHRTYPE), b"")], id="device"),
        pytest.param([(member("a", tarfile.FIFOTYPE), b"")], id="pipe"),
        pytest.param([(member("a"), b"1"), (member("a"), b"2")], id="a file twice"),
        pytest.param([(member("a"), b"1"), (member("a/b"), b"2")], id="a file as a folder"),
    ],
)
def test_hostile_archives_are_refused(tmp_path, hostile):
    """Nothing is written outside of the destination, and no link is made."""
    with pytest.raises(InvalidRequest):
        unpack(archive_of(*hostile), tmp_path / "out" / "dest")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dest"]
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_an_archive_may_not_unpack_beyond_its_bound(tmp_path):
    """A small archive of a huge file is refused before the file is written."""
    bomb = archive_of((member("zeros"), b"\0" * 3_000_000))
    assert len(bomb) < 10_000
    with pytest.raises(RequestTooLarge):
        unpack(bomb, tmp_path / "out", max_bytes=1_000_000)
    assert not (tmp_path / "out" / "zeros").exists()
    with pytest.raises(RequestTooLarge), open_archive(bomb, max_bytes=1_000_000):
        pass


@given(cut=st.integers(0, 400), noise=st.binary(min_size=1, max_size=8))
def test_damaged_archives_are_told(tmp_path_factory, cut, noise):
    """Whatever is cut off or changed, the error is one of ours, or the content is what it was."""
    whole = pack_source_files(text_files(a="1" * 300, b="2" * 300)).archive
    for damaged in (whole[: cut % len(whole)], whole[:cut] + noise + whole[cut + len(noise) :], noise):
        try:
            unpack(damaged, tmp_path_factory.mktemp("damaged") / "out", max_bytes=10_000)
        except GreenroomError:
            continue


def test_what_is_no_archive():
    """Bytes that are no gzip, and a gzip that is no tar."""
    for content in (b"hello", gzip.compress(b"hello" * 500), b""):
        with pytest.raises(InvalidRequest, match="not a whole gzipped tar"), open_archive(content):
            pass
