"""Sources fetched from a real web server on this machine: archives, and git by its own protocol and by plain files."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_server import SourceServer, commit, git, repository, serving

from gateway.actor_files.snapshot import Snapshot, open_archive
from gateway.core.errors import RequestTooLarge, SourceError
from gateway.core.model import ActorVersion
from gateway.sources.download import download
from gateway.sources.fetch import fetch_source
from gateway.sources.places import archive_place

ACTOR = {".actor/actor.json": "{}", "main.py": "print(1)"}
FIELDS = {"TARBALL": "tarballUrl", "GIT_REPO": "gitRepoUrl", "GITHUB_GIST": "gitHubGistUrl"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SourceServer]:
    """A web server with nothing on it yet."""
    root = tmp_path / "root"
    root.mkdir()
    with serving(root) as served:
        yield served


def archive(server: SourceServer, name: str) -> None:
    """ACTOR as a tar or zip archive."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(server.root / name, "w") as zipped:
            for path, content in ACTOR.items():
                zipped.writestr(path, content)
        return
    with tarfile.open(server.root / name, "w:gz") as tar:
        for path, content in ACTOR.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))


async def fetch(kind: str, url: str, said: list[str] | None = None, *, may_be_private: bool = True) -> Snapshot:
    version = ActorVersion(actor_id="a", version_number="0.1", source_type=kind, source={FIELDS[kind]: url})
    lines = said if said is not None else []
    return await fetch_source(version, lines.append, may_be_private=may_be_private)


def contents(snapshot: Snapshot) -> dict[str, str]:
    with open_archive(snapshot.archive) as files:
        return {name: content.decode() for name, content in files.items()}


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
async def test_an_archive(server: SourceServer, name: str) -> None:
    """By its content, whatever it is called; each time anew."""
    archive(server, name)
    assert contents(await fetch("TARBALL", server.url(name))) == ACTOR
    await fetch("TARBALL", server.url(name))
    assert server.requests == [f"/{name}"] * 2


async def test_redirects_and_logins(server: SourceServer) -> None:
    """A login goes to the host that it was given for, and to no other one; it is in nothing that is said."""
    archive(server, "a.tar.gz")
    server.redirects |= {"/same": "/a.tar.gz", "/other": server.url("a.tar.gz", "localhost")}
    said: list[str] = []
    base = f"http://bob:secret-word@127.0.0.1:{server.port}"
    for path in ("same", "other"):
        assert contents(await fetch("TARBALL", f"{base}/{path}", said)) == ACTOR
    assert [login is not None for login in server.logins] == [True, True, True, False]
    with pytest.raises(SourceError) as caught:
        await fetch("TARBALL", f"{base}/missing", said)
    assert "answers 404" in caught.value.message
    assert "secret-word" not in caught.value.message + "".join(said)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        pytest.param("/round", "more than 5 times", id="a circle"),
        pytest.param("file:///etc/passwd", "tarballUrl", id="another protocol"),
    ],
)
async def test_bad_redirects(server: SourceServer, location: str, message: str) -> None:
    """Each ends."""
    server.redirects["/round"] = location
    with pytest.raises(SourceError, match=message):
        await fetch("TARBALL", server.url("round"))


@pytest.mark.parametrize("kind", ["TARBALL", "GIT_REPO"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_private_addresses_are_refused_before_connecting(server: SourceServer, kind: str, host: str) -> None:
    """Unless the setting allows it; nobody has come to the server then."""
    with pytest.raises(SourceError, match="allow_private_sources"):
        await fetch(kind, server.url("git/a.git", host), may_be_private=False)
    assert server.requests == []


async def test_a_redirect_to_a_private_address_is_refused(
    server: SourceServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first address was public: here one that is taken for public."""
    from gateway.sources import reaching

    monkeypatch.setattr(reaching, "is_public", lambda address: address == "127.0.0.1")
    archive(server, "a.tar.gz")
    server.redirects |= {"/same": "/a.tar.gz", "/out": f"http://127.0.0.2:{server.port}/a.tar.gz"}
    assert contents(await fetch("TARBALL", server.url("same"), may_be_private=False)) == ACTOR
    with pytest.raises(SourceError, match=r"127\.0\.0\.2.*allow_private_sources"):
        await fetch("TARBALL", server.url("out"), may_be_private=False)


async def test_too_large_and_nobody_there(server: SourceServer, tmp_path: Path) -> None:
    """Bounded while it comes; an unknown host or a closed port is told with its name."""
    (server.root / "big").write_bytes(b"x" * 100_000)
    with pytest.raises(RequestTooLarge):
        await download(archive_place(server.url("big")), tmp_path / "x", may_be_private=True, max_bytes=50_000)
    with pytest.raises(SourceError, match="can't be fetched"):
        await fetch("TARBALL", "http://127.0.0.1:1/a")
    with pytest.raises(SourceError, match=r"no-such-host\.invalid"):
        await fetch("TARBALL", "http://no-such-host.invalid/a")
    with pytest.raises(SourceError, match="no whole tar"):
        await fetch("TARBALL", server.url("big"))


@pytest.mark.parametrize("form", ["git/", ""], ids=["git's protocol", "plain files"])
async def test_a_repository(server: SourceServer, form: str) -> None:
    """The default branch, a branch, a tag, a folder; each fetch gives what is there now."""
    work = repository(server.root, "repo", {**ACTOR, "actors/one/.actor/actor.json": "{}", "link": "x"})
    git(work, "tag", "v1")
    git(work, "checkout", "--quiet", "-b", "next")
    commit(work, {"main.py": "print(2)"})
    git(work, "push", "--quiet", "origin", "next", "v1")
    git(server.root / "repo.git", "update-server-info")
    url = server.url(f"{form}repo.git")
    said: list[str] = []
    assert contents(await fetch("GIT_REPO", url, said))["main.py"] == "print(1)"
    assert git(work, "rev-parse", "main") in "".join(said)
    assert contents(await fetch("GIT_REPO", f"{url}#next"))["main.py"] == "print(2)"
    assert contents(await fetch("GITHUB_GIST", f"{url}#v1"))["main.py"] == "print(1)"
    assert contents(await fetch("GIT_REPO", f"{url}#next:actors/one")) == {".actor/actor.json": "{}"}
    commit(work, {"main.py": "print(3)"})
    git(work, "push", "--quiet", "origin", "next")
    git(server.root / "repo.git", "update-server-info")
    assert contents(await fetch("GIT_REPO", f"{url}#next"))["main.py"] == "print(3)"


async def test_a_repository_with_tricks(server: SourceServer) -> None:
    """Attributes, filters, hooks and submodules do nothing; links are as in archives."""
    work = repository(server.root, "repo", ACTOR)
    (work / "link.py").symlink_to("main.py")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{git(work, 'rev-parse', 'HEAD')},sub")
    commit(work, {".gitattributes": "*.py export-ignore filter=evil\n"})
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{git(work, 'rev-parse', 'HEAD')},sub")
    git(work, "commit", "--quiet", "--amend", "--no-edit")
    git(work, "push", "--quiet", "origin", "main")
    said: list[str] = []
    found = contents(await fetch("GIT_REPO", server.url("git/repo.git"), said))
    assert found == {**ACTOR, ".gitattributes": "*.py export-ignore filter=evil\n", "link.py": "print(1)"}
    assert any("sub is a submodule" in line for line in said)
    (work / "out").symlink_to("/etc/passwd")
    commit(work, {})
    git(work, "push", "--quiet", "origin", "main")
    with pytest.raises(SourceError, match="leaves its folder"):
        await fetch("GIT_REPO", server.url("git/repo.git"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param("git/none.git", "git fetch failed", id="no repository"),
        pytest.param("git/repo.git#none", "none", id="no branch"),
        pytest.param("git/repo.git#main:none", "no folder none", id="no folder"),
    ],
)
async def test_what_is_not_there(server: SourceServer, url: str, message: str) -> None:
    """git's own words, or ours where they are plainer; nobody is asked for a password."""
    repository(server.root, "repo", ACTOR)
    with pytest.raises(SourceError, match=message):
        await fetch("GIT_REPO", server.url(url))


async def test_a_login_for_git_is_shown_nowhere(server: SourceServer) -> None:
    """It reaches the server, and is in no message."""
    with pytest.raises(SourceError) as caught:
        await fetch("GIT_REPO", f"http://bob:secret-word@127.0.0.1:{server.port}/git/none.git")
    assert server.logins[0] is not None
    assert "secret-word" not in caught.value.message


async def test_it_takes_too_long(server: SourceServer) -> None:
    """Bounded in time."""
    repository(server.root, "repo", ACTOR)
    version = ActorVersion(
        actor_id="a", version_number="0.1", source_type="GIT_REPO", source={"gitRepoUrl": server.url("git/repo.git")}
    )
    with pytest.raises(SourceError, match="not fetched within"):
        await fetch_source(version, lambda line: None, may_be_private=True, timeout_secs=0.001)
