"""The TLS port: real certificates, real handshakes, files that change under open connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from certificates import Authority, put
from http2.rig import LIMIT_SECS, Call, Server, serving

from gateway.commands.effective_settings import load_settings
from gateway.listening import listen
from gateway.refusals import Refused
from gateway.tls import Certificates


@pytest.fixture(scope="module")
def authority() -> Authority:
    """One for all of these tests."""
    return Authority()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where certificates are."""
    folder = tmp_path / "tls"
    folder.mkdir()
    return folder


def opened(*paths: Path, http2: bool = True, now: datetime | None = None) -> Certificates:
    return Certificates(paths, http2=http2, now=lambda: now or datetime.now(UTC))


async def say_version(call: Call) -> None:
    """Answers with the version of HTTP, and whether it was over TLS."""
    await call.body()
    text = f"{call.scope['scheme']} {call.scope['http_version']}".encode()
    await call.answer(text, headers=[(b"content-length", b"%d" % len(text))])


@contextlib.asynccontextmanager
async def connected(
    server: Server, authority: Authority, name: str | None, *protocols: str, **bounds: ssl.TLSVersion
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that asks for *name*; None names nobody."""
    context = authority.client(*protocols)
    for bound, version in bounds.items():
        setattr(context, bound, version)
    if name is None:
        context.check_hostname = False
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=context, server_hostname=name or "", ssl_shutdown_timeout=1
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def shown(server: Server, authority: Authority, name: str | None) -> list[str]:
    """The names in the certificate that who asks for *name* is shown."""
    async with connected(server, authority, name) as (_, writer):
        certificate = writer.get_extra_info("peercert")
        return [value for _, value in certificate["subjectAltName"]]


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The body of an answer, over HTTP/1.1."""
    writer.write(b"GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
    async with asyncio.timeout(LIMIT_SECS):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return await reader.readexactly(length)


# -- which certificate, which protocol ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("actors.test", ["actors.test", "*.actors.test"]),
        ("bob--shop.actors.test", ["actors.test", "*.actors.test"]),
        ("k3j5.runs.actors.test", ["*.runs.actors.test"]),
        ("www.shop.test", ["www.shop.test"]),
        (None, ["actors.test", "*.actors.test"]),
    ],
)
async def test_each_name_has_its_certificate(
    authority: Authority, folder: Path, name: str | None, expected: list[str]
) -> None:
    """The two wildcard domains, a custom one, and clients that name none."""
    authority.write(folder, "1-domain", "actors.test", "*.actors.test")
    authority.write(folder, "2-runs", "*.runs.actors.test")
    authority.write(folder, "shop", "www.shop.test")
    async with serving(tls=opened(folder).context) as server:
        assert await shown(server, authority, name) == expected


async def test_a_name_without_certificate_is_not_believed(authority: Authority, folder: Path) -> None:
    """The first certificate is shown; that it is another's is the client's to find."""
    authority.write(folder, "a", "a.test")
    async with serving(tls=opened(folder).context) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            await shown(server, authority, "b.test")


@pytest.mark.parametrize(
    ("protocols", "offers_http2", "chosen"),
    [
        (["h2", "http/1.1"], True, "h2"),
        (["http/1.1", "h2"], True, "h2"),
        (["http/1.1"], True, "http/1.1"),
        ([], True, None),
        (["h2", "http/1.1"], False, "http/1.1"),
        (["h2"], False, None),
    ],
)
async def test_what_is_spoken_is_agreed_in_the_handshake(
    authority: Authority, folder: Path, protocols: list[str], offers_http2: bool, chosen: str | None
) -> None:
    """HTTP/2 where both can."""
    authority.write(folder, "a", "a.test")
    tls = opened(folder, http2=offers_http2).context
    async with (
        serving(tls=tls, http2=offers_http2) as server,
        connected(server, authority, "a.test", *protocols) as (_, writer),
    ):
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen


@pytest.mark.parametrize(("http2", "expected"), [(True, "https 2"), (False, "https 1.1")])
async def test_a_client_is_served(authority: Authority, folder: Path, http2: bool, expected: str) -> None:
    """By either protocol, and several times over one connection."""
    authority.write(folder, "a", "localhost")
    async with serving(say_version, tls=opened(folder).context) as server:
        client = httpx.AsyncClient(http1=not http2, http2=http2, verify=authority.client(), trust_env=False)
        async with client:
            answers = [await client.get(f"https://localhost:{server.port}/") for _ in range(3)]
        assert [answer.text for answer in answers] == [expected] * 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_versions(authority: Authority, folder: Path, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3; of what is older OpenSSL's own clients know no more."""
    authority.write(folder, "a", "a.test")
    certificates = opened(folder)
    assert certificates.context.minimum_version is ssl.TLSVersion.TLSv1_2
    bounds = {"minimum_version": version, "maximum_version": version}
    async with (
        serving(tls=certificates.context) as server,
        connected(server, authority, "a.test", **bounds) as (_, writer),
    ):
        assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""],
)
async def test_what_is_no_tls_is_closed_without_a_word(
    authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    """It fills no log, and others are served."""
    authority.write(folder, "a", "a.test")
    async with serving(say_version, tls=opened(folder).context) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(said)
        if not said:
            writer.write_eof()
        async with asyncio.timeout(LIMIT_SECS):
            assert b"HTTP" not in await reader.read()
        writer.close()
        async with connected(server, authority, "a.test") as both:
            assert await get(*both) == b"https 1.1"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_websocket_over_tls_stays_here(authority: Authority, folder: Path) -> None:
    """Whoever takes WebSockets over gets the bare connection, which is of no use without the keys of its TLS."""
    authority.write(folder, "a", "a.test")
    offered: list[str] = []

    def note(method: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], connection: int) -> bool:
        offered.append(target.decode())
        return False

    async def refuse(call: Call) -> None:
        await call.send({"type": "websocket.close"})

    tls = opened(folder).context
    for number, context in enumerate((None, tls)):
        async with serving(refuse, tls=context, pass_on=note) as server:
            client = authority.client() if context else None
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=client, server_hostname="a.test" if client else None
            )
            writer.write(
                b"GET /%d HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" % number
            )
            async with asyncio.timeout(LIMIT_SECS):
                assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
            writer.close()
    assert offered == ["/0"]


# -- files that change -------------------------------------------------------------------------------------------------


async def test_a_new_certificate_serves_new_connections_and_old_ones_live_on(
    authority: Authority, folder: Path
) -> None:
    """Nobody is dropped by a renewal."""
    authority.write(folder, "a", "a.test", "old.test")
    certificates = opened(folder)
    async with serving(say_version, tls=certificates.context) as server:
        async with connected(server, authority, "a.test") as both:
            assert await get(*both) == b"https 1.1"
            authority.write(folder, "a", "a.test", "new.test")
            certificates.look()
            assert await shown(server, authority, "a.test") == ["a.test", "new.test"]
            assert await get(*both) == b"https 1.1"
        assert await shown(server, authority, "a.test") == ["a.test", "new.test"]


async def test_files_are_looked_at_by_themselves(
    authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to tell of a renewal."""
    monkeypatch.setattr("gateway.tls.LOOK_EVERY_SECS", 0.01)
    authority.write(folder, "a", "a.test")
    certificates = opened(folder)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(certificates.follow())
        async with serving(tls=certificates.context) as server:
            authority.write(folder, "a", "a.test", "new.test")
            async with asyncio.timeout(LIMIT_SECS):
                while await shown(server, authority, "a.test") != ["a.test", "new.test"]:
                    pass
        following.cancel()


async def test_renewals_under_load_lose_no_request(authority: Authority, folder: Path) -> None:
    """Handshakes of both protocols go on while the files change."""
    authority.write(folder, "a", "localhost")
    certificates = opened(folder)
    served: list[str] = []

    async def ask(server: Server, *, http2: bool) -> None:
        for _ in range(20):
            async with httpx.AsyncClient(
                http1=not http2, http2=http2, verify=authority.client(), trust_env=False
            ) as client:
                served.append((await client.get(f"https://localhost:{server.port}/")).text)

    async with serving(say_version, tls=certificates.context) as server, asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(server, http2=http2)) for http2 in (True, False)]
        renewals = 0
        while not all(task.done() for task in asking):
            authority.write(folder, "a", "localhost", f"n{renewals}.test")
            await asyncio.to_thread(certificates.look)
            renewals += 1
        assert renewals > 1
    assert sorted(served) == ["https 1.1"] * 20 + ["https 2"] * 20


def served_names(certificates: Certificates) -> set[str]:
    return {name for one in certificates._loaded.values() for name in one.certificate.names}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda chain, key, other: put(chain, b"not a certificate"), "no certificate in PEM", id="no PEM"),
        pytest.param(lambda chain, key, other: put(chain, b""), "no certificate in PEM", id="empty"),
        pytest.param(lambda chain, key, other: put(chain, other[0]), "is not the key of", id="another certificate"),
        pytest.param(lambda chain, key, other: put(key, other[1], mode=0o600), "is not the key of", id="another key"),
        pytest.param(lambda chain, key, other: put(key, b"no key", mode=0o600), "can't be used", id="no key"),
    ],
)
def test_a_broken_file_keeps_the_old_certificate(
    authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture, spoil, words: str
) -> None:
    """It is told once, when it has not been mended by the next look; and its repair is taken over."""
    caplog.set_level(logging.INFO)
    chain, key = authority.write(folder, "a", "a.test")
    authority.write(folder, "b", "b.test")
    certificates = opened(folder)
    spoil(chain, key, authority.issue("c.test"))
    for told in (0, 1, 1, 1):
        certificates.look()
        assert served_names(certificates) == {"a.test", "b.test"}
        assert certificates.is_stale
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == told
    (error,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert words in error.getMessage()
    assert "What served before goes on." in error.getMessage()
    assert "PRIVATE" not in caplog.text
    authority.write(folder, "a", "a.test", "mended.test")
    certificates.look()
    assert served_names(certificates) == {"a.test", "mended.test", "b.test"}
    assert not certificates.is_stale


def test_a_pair_that_is_replaced_in_two_steps_is_no_trouble(
    authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Between them its halves do not belong together."""
    chain, key = authority.write(folder, "a", "a.test")
    certificates = opened(folder)
    new = authority.issue("new.test")
    put(chain, new[0])
    certificates.look()
    assert served_names(certificates) == {"a.test"}
    put(key, new[1], mode=0o600)
    certificates.look()
    assert served_names(certificates) == {"new.test"}
    assert caplog.records == []


def test_certificates_come_and_go(authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new one is taken at once; one that is gone, when it is still gone at the next look; of all, the last stay."""
    authority.write(folder, "a", "a.test")
    certificates = opened(folder)
    authority.write(folder, "b", "b.test")
    certificates.look()
    assert served_names(certificates) == {"a.test", "b.test"}
    for path in folder.glob("b.*"):
        path.unlink()
    certificates.look()
    assert served_names(certificates) == {"a.test", "b.test"}
    certificates.look()
    assert served_names(certificates) == {"a.test"}
    assert caplog.records == []
    for path in folder.glob("a.*"):
        path.unlink()
    for _ in range(3):
        certificates.look()
        assert served_names(certificates) == {"a.test"}
    assert [record.getMessage() for record in caplog.records] == [
        f"tls: tls_certificates: there is no certificate with its key in {folder}. What served before goes on."
    ]


# -- what may be given -------------------------------------------------------------------------------------------------


def test_a_folder_of_folders(authority: Authority, folder: Path) -> None:
    """As certbot has it: a link in a folder for each name."""
    archive, live = folder / "archive", folder / "live"
    chain, key = authority.write(archive, "a1", "a.test")
    (live / "a.test").mkdir(parents=True)
    (live / "a.test" / "fullchain.pem").symlink_to(chain)
    (live / "a.test" / "privkey.pem").symlink_to(key)
    certificates = opened(live)
    assert served_names(certificates) == {"a.test"}
    new_chain, new_key = authority.write(archive, "a2", "a.test", "new.test")
    for link, target in (("fullchain.pem", new_chain), ("privkey.pem", new_key)):
        (live / "a.test" / link).unlink()
        (live / "a.test" / link).symlink_to(target)
    certificates.look()
    assert served_names(certificates) == {"a.test", "new.test"}


def test_single_files(authority: Authority, folder: Path) -> None:
    """One with its key beside it, one with its key in it; in the order in which they were given."""
    chain, _ = authority.write(folder, "b", "b.test")
    both = folder / "both.pem"
    put(both, b"".join(authority.issue("a.test")), mode=0o600)
    certificates = opened(chain, both)
    assert served_names(certificates) == {"a.test", "b.test"}
    assert [one.certificate.names for one in certificates._loaded.values()] == [("b.test",), ("a.test",)]


def test_nothing_to_serve_with_is_refused(authority: Authority, folder: Path) -> None:
    """An empty folder, one that is not there, a file that is none: in words that say what to do."""
    for path in (folder, folder / "none"):
        with pytest.raises(Refused, match=r"there is no certificate with its key in|can't be read: No such file"):
            opened(path)
    put(folder / "a.pem", authority.issue("a.test", password=b"secret")[0])
    put(folder / "a.key", authority.issue("a.test", password=b"secret")[1], mode=0o600)
    with pytest.raises(Refused, match=r"a\.key is protected by a password"):
        opened(folder)


def test_one_that_can_be_used_is_enough(authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The others are told of, and taken when they are mended."""
    authority.write(folder, "a", "a.test")
    put(folder / "b.pem", b"what")
    put(folder / "b.key", b"what", mode=0o600)
    certificates = opened(folder)
    assert served_names(certificates) == {"a.test"}
    assert certificates.is_stale
    assert "b.pem holds no certificate" in caplog.text


def test_a_key_that_others_may_read_is_told_of_once(
    authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is used all the same: in some places modes can't be chosen."""
    _, key = authority.write(folder, "a", "a.test")
    key.chmod(0o640)
    certificates = opened(folder)
    for _ in range(3):
        (folder / "a.pem").touch()
        certificates.look()
    assert [record.getMessage() for record in caplog.records] == [
        f"tls: the private key {key} may be read by others (mode 0640): chmod 600 it"
    ]


def test_expiry_is_told_of_every_day(authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From two weeks before; and the first to end is known."""
    authority.write(folder, "a", "a.test", days=90)
    authority.write(folder, "b", "b.test", days=20)
    now = datetime.now(UTC)
    certificates = Certificates([folder], http2=True, now=lambda: now)
    assert abs(certificates.first_expiry - now - timedelta(days=20)) < timedelta(minutes=1)
    warnings = []
    for hours in (0, 24 * 5, 24 * 7, 24 * 7 + 12, 24 * 8 + 1, 24 * 21):
        caplog.clear()
        now = datetime.now(UTC) + timedelta(hours=hours)
        certificates.look()
        warnings.append([record.getMessage().split(" ", 3)[3].split(":")[0] for record in caplog.records])
    b = f"{folder}/b.pem"
    ends = f"{certificates.first_expiry:%Y-%m-%d}"
    assert warnings == [
        [],
        [],
        [f"{b} expires on {ends}, in 13 days"],
        [],
        [f"{b} expires on {ends}, in 12 days"],
        [f"{b} expired on {ends}"],
    ]


def test_a_certificate_without_names_serves_as_the_first(authority: Authority, folder: Path) -> None:
    """No name leads to it, so it can only be everybody's."""
    authority.write(folder, "a")
    assert served_names(opened(folder)) == set()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param({"tls_port": "8443"}, "with tls_port, a folder with a certificate", id="no certificates"),
        pytest.param({"tls_port": "8010", "tls_certificates": "/etc/tls"}, "another port than the", id="one port"),
        pytest.param({"tls_port": "70000", "tls_certificates": "/etc/tls"}, "or equal to 65535", id="no port"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, str], words: str) -> None:
    """Each is told in words, with the setting's name."""
    with pytest.raises(Refused, match=words) as caught:
        load_settings(given)
    assert "tls_" in caught.value.lines[0]


def test_certificates_are_given_as_in_path() -> None:
    """Several with a colon between; relative ones mean the same wherever the worker stands."""
    settings = load_settings({"tls_port": "0", "tls_certificates": "/etc/tls:mine"})
    assert settings.tls_certificates == (Path("/etc/tls"), Path.cwd() / "mine")
    assert load_settings({"tls_certificates": "/etc/tls"}).tls_port is None


def test_a_tls_port_that_is_taken_is_told_of() -> None:
    """With the setting that chooses another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Refused, match="choose another port with --set tls_port=N"):
            listen("127.0.0.1", taken.getsockname()[1], given_by="--set tls_port=N")
