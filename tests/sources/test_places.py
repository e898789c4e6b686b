"""URLs of sources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import SourceError
from gateway.sources.places import Place, archive_place, git_place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param(
            "https://example.com/a.git",
            Place(url="https://example.com/a.git", host="example.com", port=443),
            id="plain",
        ),
        pytest.param(
            "http://example.com:81/a#main:actors/one/",
            Place(url="http://example.com:81/a", host="example.com", port=81, ref="main", folder="actors/one"),
            id="branch and folder",
        ),
        pytest.param(
            "https://example.com/a#:one",
            Place(url="https://example.com/a", host="example.com", port=443, folder="one"),
            id="folder alone",
        ),
        pytest.param(
            "https://bob:p%40ss@example.com/a#feature/x",
            Place(url="https://example.com/a", host="example.com", port=443, login="bob:p@ss", ref="feature/x"),
            id="a login is kept apart",
        ),
        pytest.param(
            "git@example.com:me/a.git",
            Place(url="ssh://git@example.com/me/a.git", host="example.com", port=22, login="git:"),
            id="as git has it",
        ),
        pytest.param("git://example.com/a", Place(url="git://example.com/a", host="example.com", port=9418), id="git"),
        pytest.param("http://[::1]:80/a", Place(url="http://[::1]:80/a", host="::1", port=80), id="IPv6"),
    ],
)
def test_git_place(text: str, place: Place) -> None:
    """Repository, branch or tag, folder."""
    assert git_place("gitRepoUrl", text) == place


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("/etc", id="a path"),
        pytest.param("file:///etc", id="a file"),
        pytest.param("ext::sh -c true", id="a command"),
        pytest.param("https://", id="no host"),
        pytest.param("https://-oProxyCommand=x/a", id="a host that is an option"),
        pytest.param("-u:x", id="an option"),
        pytest.param("https://example.com:99999/a", id="no port"),
        pytest.param("https://exa mple.com/a", id="a space"),
        pytest.param("https://example.com/a\nb", id="a line break"),
        pytest.param("https://example.com/a#--upload-pack=x", id="a branch that is an option"),
        pytest.param("https://example.com/a#a..b", id="a range"),
        pytest.param("https://example.com/a#main:../x", id="a folder outside"),
        pytest.param("https://example.com/" + "a" * 3000, id="too long"),
    ],
)
def test_no_places(text: str) -> None:
    """Told with the field; what would be an option or a command for git never gets there."""
    with pytest.raises(SourceError, match="gitRepoUrl"):
        git_place("gitRepoUrl", text)


def test_archives_come_by_http_alone() -> None:
    """Other protocols are git's."""
    assert archive_place("https://example.com/a.tgz").port == 443
    with pytest.raises(SourceError, match="tarballUrl"):
        archive_place("ssh://example.com/a.tgz")


@given(st.text(max_size=60))
def test_whatever_is_given(text: str) -> None:
    """A place or a SourceError, and no place whose URL shows a login of HTTP."""
    for prefix in ("", "https://", "https://a:secret-word@example.com/"):
        try:
            place = git_place("gitRepoUrl", prefix + text)
        except SourceError as error:
            shown = error.message
        else:
            shown = place.url
            assert not place.host.startswith("-")
        assert "secret-word" not in shown
