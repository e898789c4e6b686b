"""The data folder: its lock, and the first user with a token that works."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.auth import Authenticator
from gateway.core.errors import TokenNotFound
from gateway.core.ids import ID_BYTES, record_id, token_hash
from gateway.core.model import Token
from gateway.data_dir import (
    ensure_first_user,
    gateway_folders,
    live_holder,
    make_data_dir,
    new_user,
    read_holder,
    records_place,
    records_url,
    server_url,
    take_gateway_lock,
    take_lock,
    take_shared_lock,
    token_path,
)
from gateway.refusals import Refused
from gateway.settings import Settings
from gateway.state.records import open_records

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def records(tmp_path):
    """Real records in a file."""
    async with open_records(records_url(tmp_path)) as opened:
        yield opened


def new_id() -> str:
    """A fresh id."""
    return record_id(os.urandom(ID_BYTES))


async def start(records, data: Path, **given):
    """What each start of Greenroom does."""
    settings = Settings(data=data, **given)
    return await ensure_first_user(records, settings, now=NOW, new_id=new_id, random_bytes=os.urandom)


async def whose(records, token: str) -> str:
    """The name of the user whom *token* belongs to."""
    auth = Authenticator(records, cache_secs=0, now=lambda: NOW, clock=lambda: 0.0)
    return (await auth.principal(token)).username


async def test_a_token_is_made_once(records, tmp_path):
    """The first start makes user and token, in a file for its owner only; later starts change nothing."""
    first = await start(records, tmp_path)
    token = (tmp_path / "token").read_text().strip()
    assert first.token_file == tmp_path / "token"
    assert first.token_file.stat().st_mode & 0o777 == 0o600
    assert first.user.is_admin
    assert await whose(records, token) == "local"
    again = await start(records, tmp_path)
    assert again == first
    assert (tmp_path / "token").read_text().strip() == token
    assert len(await records.list_tokens(first.user.id)) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []


async def test_a_given_token_is_never_written_down(records, tmp_path):
    """GREENROOM_TOKEN works and stands in no file of the data folder, the records included."""
    given = "given-by-hand-0123456789"
    first = await start(records, tmp_path, token=given)
    assert first.token_file is None
    assert await whose(records, given) == "local"
    assert not token_path(Settings(data=tmp_path)).exists()
    assert all(given.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


async def test_another_given_token_replaces_the_older_one(records, tmp_path):
    """A token that was given at an earlier start ends when another is given; the file's goes on."""
    await start(records, tmp_path)
    in_file = (tmp_path / "token").read_text().strip()
    await start(records, tmp_path, token="the-first-one")
    await start(records, tmp_path, token="the-second-one")
    assert await whose(records, "the-second-one") == "local"
    assert await whose(records, in_file) == "local"
    with pytest.raises(TokenNotFound):
        await whose(records, "the-first-one")


async def test_a_token_file_is_read(records, tmp_path):
    """What stands in --token-file is the token; when its content changes, the old one ends."""
    file = tmp_path / "elsewhere"
    file.write_text("from-a-file\n")
    assert (await start(records, tmp_path, token_file=file)).token_file == file
    assert await whose(records, "from-a-file") == "local"
    file.write_text("rotated\n")
    await start(records, tmp_path, token_file=file)
    assert await whose(records, "rotated") == "local"
    with pytest.raises(TokenNotFound):
        await whose(records, "from-a-file")
    assert not (tmp_path / "token").exists()


async def test_an_expired_record_of_the_given_token_is_renewed(records, tmp_path):
    """The given token works even where it was registered before with an end or with fewer rights."""
    user = (await start(records, tmp_path)).user
    await records.add_token(
        Token(
            id=new_id(),
            user_id=user.id,
            name="short",
            token_hash=token_hash("once-short-lived"),
            scopes=frozenset({"runs:read"}),
            created_at=NOW,
            expires_at=NOW - timedelta(days=1),
        )
    )
    await start(records, tmp_path, token="once-short-lived")
    assert await whose(records, "once-short-lived") == "local"


async def test_another_first_user(records, tmp_path):
    """With another --user the token in the file is that user's."""
    await start(records, tmp_path)
    await start(records, tmp_path, user="alice")
    assert await whose(records, (tmp_path / "token").read_text().strip()) == "alice"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param({"user": "a b"}, "no user name", id="no user name"),
        pytest.param({"user": "plain"}, "no administrator", id="a plain user"),
        pytest.param({"token": "with blank"}, "GREENROOM_TOKEN", id="token with a blank"),
        pytest.param({"token_file": Path("/dev/null")}, "is empty", id="empty token file"),
        pytest.param({"token_file": Path("/dev/null/token")}, "can't be read", id="unreadable token file"),
    ],
)
async def test_refused_in_words(records, tmp_path, given, told):
    """What can't be is one clear line, and no user is made an administrator on the way."""
    await records.add_user(new_user("plain", is_admin=False, now=NOW, user_id=new_id()))
    with pytest.raises(Refused, match=told) as refused:
        await start(records, tmp_path, **given)
    assert len(refused.value.lines) == 1


def test_lock_is_exclusive(tmp_path):
    """One holder at a time; the next one is told who holds it, and gets it once it is free."""
    first = take_lock(tmp_path)
    first.describe(os.getpid(), "http://127.0.0.1:8010")
    with pytest.raises(Refused, match=f"process {os.getpid()},"):
        take_lock(tmp_path, wait_secs=0)
    assert read_holder(tmp_path).url == "http://127.0.0.1:8010"
    first.release()
    take_lock(tmp_path, wait_secs=0).release()
    assert read_holder(tmp_path).url == ""


def test_gateways_and_autoscalers_share_a_folder(tmp_path):
    """Any number of them; a server that is all in one gets it when the last has gone, and they when that has."""
    one, other = take_gateway_lock(tmp_path), take_gateway_lock(tmp_path)
    autoscaler = take_shared_lock(tmp_path)
    assert [one.folder, other.folder] == [tmp_path / "gateways" / "1", tmp_path / "gateways" / "2"]
    one.release()
    other.release()
    with pytest.raises(Refused, match="'greenroom gateway' or 'greenroom autoscaler' have the data folder"):
        take_lock(tmp_path, wait_secs=0)
    os.close(autoscaler)
    alone = take_lock(tmp_path, wait_secs=0)
    assert alone.folder == tmp_path
    alone.describe(os.getpid(), "http://127.0.0.1:8010")
    for take in (take_gateway_lock, take_shared_lock):
        with pytest.raises(Refused, match=f"'greenroom serve' \\(process {os.getpid()}\\) has the data folder"):
            take(tmp_path, wait_secs=0)
    alone.release()
    take_gateway_lock(tmp_path, wait_secs=0).release()


def test_a_gateway_is_found_by_its_part_of_the_folder(tmp_path):
    """Each says where it answers; who has ended is not taken for one that lives, and his place is taken again."""
    assert server_url(tmp_path) == ""
    gateways = [take_gateway_lock(tmp_path) for _ in range(3)]
    for number, gateway in enumerate(gateways):
        gateway.describe(100 + number, f"http://127.0.0.1:{9000 + number}")
    assert server_url(tmp_path) == "http://127.0.0.1:9000"
    os.close(gateways[0].descriptor)  # killed: what it has said still stands there
    assert live_holder(gateways[0].folder) is None
    assert server_url(tmp_path) == "http://127.0.0.1:9001"
    again = take_gateway_lock(tmp_path)
    assert again.folder == gateways[0].folder
    assert gateway_folders(tmp_path) == [gateway.folder for gateway in gateways]
    holder = live_holder(gateways[2].folder)
    assert holder is not None
    assert (holder.pid, holder.url) == ("102", "http://127.0.0.1:9002")
    for gateway in (again, *gateways[1:]):
        gateway.release()
    assert server_url(tmp_path) == ""


def test_places_are_bounded(tmp_path, monkeypatch):
    """One clear line tells when a folder has too many."""
    monkeypatch.setattr("gateway.data_dir._MOST_GATEWAYS", 1)
    first = take_gateway_lock(tmp_path)
    with pytest.raises(Refused, match="1 gateways have the data folder"):
        take_gateway_lock(tmp_path)
    first.release()
    take_lock(tmp_path, wait_secs=0).release()


async def test_processes_that_start_at_once_agree(records, tmp_path):
    """On the first user, and on the token in the file, whoever wrote it."""
    firsts = await asyncio.gather(*(start(records, tmp_path) for _ in range(8)))
    assert len({first.user.id for first in firsts}) == 1
    assert len(await records.list_users()) == 1
    assert await whose(records, (tmp_path / "token").read_text().strip()) == "local"
    assert len(await records.list_tokens(firsts[0].user.id)) == 1


async def test_folders_that_share_records_each_have_a_token(records, tmp_path):
    """A gateway of another machine does not take away what is in the file of the first."""
    for name in ("one", "other", "one"):
        (tmp_path / name).mkdir(exist_ok=True)
        await start(records, tmp_path / name, records_url="postgresql://db/greenroom")
    for name in ("one", "other"):
        assert await whose(records, (tmp_path / name / "token").read_text().strip()) == "local"


def test_where_the_records_are(tmp_path):
    """As the setting says, else in the data folder."""
    assert records_place(Settings(data=tmp_path)) == records_url(tmp_path)
    assert records_place(Settings(data=tmp_path, records_url="postgresql://db/a")) == "postgresql://db/a"


def test_data_dir_is_private(tmp_path):
    """A new data folder is readable by its owner alone."""
    data = tmp_path / "a" / "b"
    make_data_dir(data)
    assert data.stat().st_mode & 0o777 == 0o700


def test_a_worker_of_a_killed_server_is_waited_for(tmp_path: Path) -> None:
    """It has the lock for a moment longer than the server that the file names, which is gone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    first = take_lock(tmp_path)
    first.describe(gone.pid, "http://127.0.0.1:8010")
    ending = threading.Timer(0.3, os.close, [first.descriptor])
    ending.start()
    take_lock(tmp_path, wait_secs=0).release()
    ending.join()


@pytest.mark.parametrize("what", [make_data_dir, take_lock, take_shared_lock, take_gateway_lock])
def test_unusable_data_dir(what):
    """A folder that can't be made or written is a mistake of the command, told in one line that names it."""
    with pytest.raises(Refused, match="/dev/null/data") as refused:
        what(Path("/dev/null/data"))
    assert refused.value.exit_code == 2
    assert len(refused.value.lines) == 1
