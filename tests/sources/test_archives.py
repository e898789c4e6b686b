"""Archives from elsewhere: what is taken, and what is refused."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actor_files.snapshot import Snapshot, open_archive
from gateway.core.errors import GreenroomError, RequestTooLarge, SourceError
from gateway.sources import archives
from gateway.sources.archives import SourceFile, snapshot_of_archive_file, snapshot_of_files

Member = tuple[str, str | bytes, int | bytes]  # name, content or target, mode or kind


def tar(path: Path, *members: Member, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            if isinstance(kind, bytes):
                info.type = kind
                info.linkname = str(content)
                made.addfile(info)
            else:
                data = content.encode() if isinstance(content, str) else content
                info.size, info.mode = len(data), kind
                made.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, *members: Member) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content, kind in members:
            info = zipfile.ZipInfo(name)
            mode = stat.S_IFLNK | 0o777 if kind == tarfile.SYMTYPE else stat.S_IFREG | int(kind)  # type: ignore[arg-type]
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, content)
    return path


def contents(snapshot: Snapshot) -> dict[str, bytes]:
    with open_archive(snapshot.archive) as files:
        return dict(files)


MAKERS = [pytest.param(tar, id="tar.gz"), pytest.param(zipped, id="zip")]


@pytest.mark.parametrize("make", MAKERS)
def test_an_archive_becomes_a_snapshot(make: Callable[..., Path], tmp_path: Path) -> None:
    """All files, their being executable, links as what they point to; less what .actorignore names."""
    path = make(
        tmp_path / "a",
        ("run.sh", "#!/bin/sh", 0o755),
        (".actorignore", "*.md\n", 0o644),
        ("README.md", "x", 0o644),
        ("src/a.py", "a", 0o644),
        ("node_modules/x/y.js", "y", 0o644),
        ("link.py", "src/a.py", tarfile.SYMTYPE),
        ("more", "src", tarfile.SYMTYPE),
        ("more2/deep", "../more", tarfile.SYMTYPE),
    )
    snapshot = snapshot_of_archive_file(path)
    assert contents(snapshot) == {
        ".actorignore": b"*.md\n",
        "link.py": b"a",
        "more/a.py": b"a",
        "more2/deep/a.py": b"a",
        "run.sh": b"#!/bin/sh",
        "src/a.py": b"a",
    }
    with tarfile.open(fileobj=io.BytesIO(snapshot.archive)) as packed:
        assert {member.name for member in packed if member.mode & stat.S_IXUSR} == {"run.sh"}


@pytest.mark.parametrize("make", MAKERS)
def test_a_common_folder_is_taken_for_the_source(make: Callable[..., Path], tmp_path: Path) -> None:
    """As forges pack a repository; .actor alone is no such folder."""
    path = make(tmp_path / "a", ("repo-1/.actor/actor.json", "{}", 0o644), ("repo-1/a", "1", 0o644))
    assert set(contents(snapshot_of_archive_file(path))) == {".actor/actor.json", "a"}
    path = make(tmp_path / "b", (".actor/actor.json", "{}", 0o644))
    assert set(contents(snapshot_of_archive_file(path))) == {".actor/actor.json"}


def test_a_plain_tar_and_a_hard_link(tmp_path: Path) -> None:
    """A tar need not be compressed; its hard links are files."""
    path = tar(tmp_path / "a", ("a", "1", 0o644), ("b", "a", tarfile.LNKTYPE), mode="w")
    assert contents(snapshot_of_archive_file(path)) == {"a": b"1", "b": b"1"}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("members", "message"),
    [
        pytest.param([("../a", "x", 0o644)], "leaves its folder", id="up"),
        pytest.param([("a/../../b", "x", 0o644)], "leaves its folder", id="up by detours"),
        pytest.param([("/etc/passwd", "x", 0o644)], "leaves its folder", id="absolute"),
        pytest.param([("a", "/etc/passwd", tarfile.SYMTYPE)], "leaves its folder", id="link to an absolute path"),
        pytest.param([("a/b", "../../x", tarfile.SYMTYPE)], "leaves its folder", id="link out"),
        pytest.param([("a", "nowhere", tarfile.SYMTYPE), ("b", "", 0o644)], "there is nothing", id="link to nothing"),
        pytest.param([("a", "b", tarfile.SYMTYPE), ("b", "a", tarfile.SYMTYPE)], "leads back", id="links in a circle"),
        pytest.param([("a/b", ".", tarfile.SYMTYPE), ("a/c", "", 0o644)], "leads back", id="link to its folder"),
        pytest.param([("a", "x", 0o644), ("a/b", "y", 0o644)], "twice", id="file and folder"),
    ],
)
def test_what_is_refused(make: Callable[..., Path], tmp_path: Path, members: list[Member], message: str) -> None:
    """Nothing of it is believed to be harmless."""
    with pytest.raises(SourceError) as caught:
        snapshot_of_archive_file(make(tmp_path / "a", *members))
    assert message in caught.value.message


def test_devices_and_double_names(tmp_path: Path) -> None:
    """Neither plain file nor folder nor link; or the same name again, which could replace what was checked."""
    with pytest.raises(SourceError, match="neither a plain file"):
        snapshot_of_archive_file(tar(tmp_path / "a", ("a", "", tarfile.FIFOTYPE)))
    with pytest.raises(SourceError, match="twice"):
        snapshot_of_archive_file(tar(tmp_path / "b", ("a", "1", 0o644), ("./a", "2", 0o644)))


@pytest.mark.parametrize("make", MAKERS)
def test_too_much(make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size and number are bounded, also where a small archive unpacks to much."""
    bomb = make(tmp_path / "bomb", ("a", b"\0" * 5_000_000, 0o644))
    assert bomb.stat().st_size < 50_000
    monkeypatch.setattr(archives, "_MAX_UNPACKED_BYTES", 1_000_000)
    with pytest.raises(RequestTooLarge):
        snapshot_of_archive_file(bomb)
    many = make(tmp_path / "many", *((f"{number}", "", 0o644) for number in range(20)))
    monkeypatch.setattr(archives, "MAX_SNAPSHOT_FILES", 10)
    with pytest.raises(RequestTooLarge):
        snapshot_of_archive_file(many)


def test_a_zip_that_lies_about_sizes(tmp_path: Path) -> None:
    """No more is read than it says, and then it is refused."""
    path = zipped(tmp_path / "a", ("a", b"\0" * 100_000, 0o644))
    data = bytearray(path.read_bytes())
    size = (100_000).to_bytes(4, "little")
    for _ in range(2):
        at = data.index(size)
        data[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SourceError):
        snapshot_of_archive_file(path)


@given(st.binary(max_size=300))
def test_no_archive_at_all(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever it is, it ends in an error of ours or in a snapshot."""
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    with contextlib.suppress(GreenroomError):
        snapshot_of_archive_file(path)


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(names, st.one_of(st.none(), names), max_size=8))
def test_links_of_all_kinds(tree: dict[str, str | None]) -> None:
    """Links are followed to their end or refused; what comes out holds no content that was not there."""
    files = {name: SourceFile(lambda name=name: name.encode(), link=link) for name, link in tree.items()}
    try:
        snapshot = snapshot_of_files(files)
    except SourceError:
        return
    plain = {name.encode() for name, link in tree.items() if link is None}
    found = contents(snapshot)
    assert set(found.values()) == plain
    assert {name for name, link in tree.items() if link is None} <= set(found)
