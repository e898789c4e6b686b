"""The command line: real processes where it matters, and every example in the help is one that works."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway import refusals
from gateway.cli import GROUPS, VERBS, build_parser, main
from gateway.commands.effective_settings import FLAGS, explain, load_settings, parse_assignments
from gateway.core.ids import token_hash
from gateway.data_dir import records_url
from gateway.settings import Settings
from gateway.state.records import open_records

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A data folder of this test's own, chosen as a person would: by a variable."""
    folder = tmp_path / "data"
    monkeypatch.setenv("GREENROOM_DATA", str(folder))
    return folder


def greenroom(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


# --- help and mistakes ------------------------------------------------------------------------------------------------


def test_help_is_for_a_newcomer():
    """`greenroom --help` works as a process and names every verb with its example, and no other."""
    shown = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for group, verbs in GROUPS.items():
        assert f"{group}:" in shown
        for verb in verbs:
            assert verb.summary in shown
            assert verb.example in shown
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param("serve", ["--actors DIR", "Repeatable", "--trust-users", "Default: 8010"], id="serve"),
        pytest.param("push", ["The Actor's folder", "--url"], id="push"),
        pytest.param("token create", ["--user NAME", "--expires-days"], id="a verb of two words"),
    ],
)
def test_each_verb_explains_its_flags(capsys, words, told):
    """`greenroom VERB --help` is about that verb, not the general page again."""
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([*words.split(), "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert shown.startswith(f"usage: greenroom {words}")
    assert all(text in shown for text in told), shown


@pytest.mark.parametrize("words", VERBS)
def test_no_flag_takes_a_token(words):
    """Command lines can be read by every user of the machine, so a token never stands in one."""
    arguments = shlex.split(VERBS[words].example)[1:]
    with pytest.raises(refusals.Refused):
        build_parser().parse_args([*arguments, "--token", "secret"])


@pytest.mark.parametrize("words", VERBS)
def test_examples_work(words):
    """The example of each verb is a command line that the verb takes."""
    program, *arguments = shlex.split(VERBS[words].example)
    assert program == "greenroom"
    assert build_parser().parse_args(arguments).words == words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param([], "VERB", id="no verb"),
        pytest.param(["dance"], "dance", id="no such verb"),
        pytest.param(["serve", "--prot", "1"], "--prot", id="no such flag"),
        pytest.param(["serve", "--port", "many"], "--port (GREENROOM_PORT): 'many'", id="port is a number"),
        pytest.param(["serve", "--port", "70000"], "less than or equal to 65535", id="port too large"),
        pytest.param(["serve", "--domain", "a_b"], "a DNS name such as", id="domain"),
        pytest.param(["serve", "--launcher", "podman"], "--launcher", id="launcher"),
        pytest.param(["serve", "--set", "tick_secs"], "KEY=VALUE", id="no assignment"),
        pytest.param(["serve", "--set", "tick_sec=1"], "did you mean 'tick_secs'?", id="no such setting"),
        pytest.param(["serve", "--set", "tick-secs=-1"], "GREENROOM_TICK_SECS", id="out of range"),
        pytest.param(["serve", "--set", "token=hidden-word"], "GREENROOM_TOKEN", id="secret in a command line"),
        pytest.param(["serve", "--set", "signals_url=http://a"], "redis://HOST:PORT/DB", id="signals of no Redis"),
        pytest.param(["config", "--workers", "0"], "GREENROOM_WORKERS", id="no workers"),
        pytest.param(
            ["serve", "--set", "signals_url=redis://a:hidden-word@b/0"],
            "GREENROOM_SIGNALS_URL",
            id="password in a command line",
        ),
        pytest.param(["serve", "--data", "/dev/null/data"], "/dev/null/data", id="data folder"),
        pytest.param(["logs"], "RUN_OR_BUILD", id="missing argument"),
        pytest.param(["names", "a", "rename", "b"], "rename", id="no such action"),
        pytest.param(
            ["serve", "--set", "dns_servers=dns.example"], "an address such as 9.9.9.9", id="a server by name"
        ),
        pytest.param(["token", "create", "--user", "a", "--expires-days", "-1"], "--expires-days", id="expiry"),
        pytest.param(["token", "create", "--user", "a", "--scope", "all"], "actors:run", id="scope"),
        pytest.param(["user", "add", "a b"], "no user name", id="user name"),
        pytest.param(["user", "add", "a--b"], "divides user from Actor", id="user name like a host name"),
        pytest.param(["push", "/dev/null"], "no token", id="no token"),
    ],
)
def test_mistakes_are_one_clear_line(capsys, data, words, told):
    """A mistake is told in one line on standard error with exit code 2, never by a traceback."""
    code, out, err = greenroom(capsys, *words)
    assert (code, out) == (2, "")
    assert told in err
    assert err.startswith("greenroom: ")
    assert err.count("\n") == 1
    assert "hidden-word" not in err


def test_several_mistakes(capsys, monkeypatch, data):
    """Each mistake in the settings has its line."""
    monkeypatch.setenv("GREENROOM_PORT", "x")
    monkeypatch.setenv("GREENROOM_TICK_SECS", "0")
    code, _, err = greenroom(capsys, "config")
    assert code == 2
    assert ["GREENROOM_PORT" in err.splitlines()[0], "GREENROOM_TICK_SECS" in err.splitlines()[1]] == [True, True]


# --- settings ---------------------------------------------------------------------------------------------------------


def test_flags_agree_with_settings():
    """Every flag of `serve` is a setting, and what the design promises as a flag is one."""
    assert set(FLAGS) <= set(Settings.model_fields)
    promised = {"host", "port", "domain", "data", "launcher", "actors", "token_file", "user", "trust_users"}
    promised |= {"workers"}
    assert set(FLAGS) == promised


def test_order_of_sources(capsys, monkeypatch, tmp_path, data):
    """Flags win over variables, variables over the file, the file over defaults; `config` says which it was."""
    file = tmp_path / "config.toml"
    file.write_text('port = 1001\nhost = "0.0.0.0"\nuser = "filed"\n')
    monkeypatch.setenv("GREENROOM_CONFIG", str(file))
    monkeypatch.setenv("GREENROOM_PORT", "1002")
    monkeypatch.setenv("GREENROOM_HOST", "127.0.0.2")
    monkeypatch.setenv("GREENROOM_TOKEN", "hidden-word")
    code, out, _ = greenroom(capsys, "config", "--port", "1003", "--set", "tick_secs=7")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert code == 0
    assert rows["port"].split() == ["1003", "flag", "--port"]
    assert rows["host"].split() == ["127.0.0.2", "variable", "GREENROOM_HOST"]
    assert rows["user"].split() == ["filed", "file", str(file)]
    assert rows["domain"].split() == ["localhost", "default"]
    assert rows["tick_secs"].startswith("7.0")
    assert "hidden-word" not in out
    assert list(rows) == list(Settings.model_fields)


def test_passwords_in_urls_are_not_shown(capsys, monkeypatch, data):
    """`config` shows where the stores are, without what opens them; nor does a mistake repeat it."""
    monkeypatch.setenv("GREENROOM_SIGNALS_URL", "rediss://green:hidden-word@10.0.0.1:6379/2")
    monkeypatch.setenv("GREENROOM_RECORDS_URL", "postgresql://green:hidden-word@db/greenroom")
    monkeypatch.setenv("GREENROOM_BLOBS_URL", "")
    code, out, _ = greenroom(capsys, "config")
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines()}
    assert code == 0
    assert rows["signals_url"] == "rediss://green:***@10.0.0.1:6379/2"
    assert rows["records_url"] == "postgresql://green:***@db/greenroom"
    assert rows["blobs_url"] == "none"
    assert "hidden-word" not in repr(load_settings({}))
    monkeypatch.setenv("GREENROOM_RECORDS_URL", "mysql://green:hidden-word@db/greenroom")
    code, _, err = greenroom(capsys, "config")
    assert (code, "hidden-word" in err, "GREENROOM_RECORDS_URL" in err) == (2, False, True)


@pytest.mark.parametrize("text", ["port = ", "prot = 1\n", "\xff"])
def test_a_broken_settings_file(capsys, monkeypatch, tmp_path, data, text):
    """A mistake in the file is told with the file's name."""
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="latin-1")
    monkeypatch.setenv("GREENROOM_CONFIG", str(file))
    code, _, err = greenroom(capsys, "config")
    assert code == 2
    assert str(file) in err
    assert err.count("\n") == 1


def test_thresholds_of_the_autoscaler(capsys, monkeypatch, tmp_path, data):
    """As a JSON object, or as a table of the file; `config` shows them, whole numbers as such."""
    file = tmp_path / "config.toml"
    file.write_text("[autoscaler_thresholds]\npanic_window_secs = 10\nqueue_ratio = 0.5\n")
    monkeypatch.setenv("GREENROOM_CONFIG", str(file))
    _, out, _ = greenroom(capsys, "config")
    assert '{"panic_window_secs": 10, "queue_ratio": 0.5}' in out
    _, out, _ = greenroom(capsys, "config", "--set", 'autoscaler_thresholds={"learns_idle_timeout": true}')
    assert '{"learns_idle_timeout": true}' in out
    for wrong in ("{", "[1]", '{"queue_ratio": "much"}'):
        code, _, err = greenroom(capsys, "config", "--set", f"autoscaler_thresholds={wrong}")
        assert (code, "GREENROOM_AUTOSCALER_THRESHOLDS" in err) == (2, True)


def test_lists_in_variables_and_assignments(monkeypatch, tmp_path):
    """Lists are written as people write them: as in PATH, with commas, as a range."""
    monkeypatch.setenv("GREENROOM_ACTORS", os.pathsep.join(["/a", "/b"]))
    settings = load_settings(parse_assignments(["port_range=100-200", "trusted-proxies=10.0.0.1, 10.0.0.2"]))
    assert settings.actors == (Path("/a"), Path("/b"))
    assert settings.port_range == (100, 200)
    assert settings.trusted_proxies == ("10.0.0.1", "10.0.0.2")


def test_settings_survive_the_way_to_the_worker(monkeypatch):
    """What the parent hands over is what the worker reads, whatever the variables say."""
    settings = load_settings({"port": "0", "actors": ["x"]})
    monkeypatch.setenv("GREENROOM_PORT", "9999")
    again = Settings.model_validate_json(settings.model_dump_json())
    assert again == settings
    assert all(folder.is_absolute() for folder in (again.data, *again.actors))
    assert {row.name: row.origin for row in explain(again, {})}["port"] == "variable GREENROOM_PORT"


# --- users and tokens -------------------------------------------------------------------------------------------------


async def stored(data: Path, token: str):
    """The stored token and its user."""
    async with open_records(records_url(data)) as records:
        found = await records.token_by_hash(token_hash(token))
        return found, (await records.user(found.user_id) if found else None)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """One command as a process of its own."""
    return subprocess.run([sys.executable, "-m", "gateway.cli", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
async def test_users_and_tokens(data):
    """A user is added, gets a token that is printed alone and once, and loses it again."""
    assert command("user", "add", "jane.doe").returncode == 0
    assert "jane.doe" in command("user", "list").stdout
    made = command(
        "token", "create", "--user", "jane.doe", "--name", "ci", "--scope", "actors:run", "--expires-days", "2"
    )
    token = made.stdout.strip()
    assert made.stdout == f"{token}\n"
    found, user = await stored(data, token)
    assert (user.username, user.is_admin, found.name, found.scopes) == ("jane.doe", False, "ci", {"actors:run"})
    assert (found.expires_at - found.created_at).days == 2
    listed = command("token", "list", "--user", "jane.doe").stdout
    assert found.id in listed
    assert token not in listed
    assert command("token", "delete", found.id).returncode == 0
    assert (await stored(data, token))[0] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["user", "add", "jane-doe"], "exists already", id="same host name"),
        pytest.param(["token", "create", "--user", "nobody"], "no user 'nobody'", id="no such user"),
        pytest.param(["token", "list", "--user", "nobody"], "no user 'nobody'", id="nobody's list"),
        pytest.param(["token", "delete", "x"], "no token 'x'", id="no such token"),
    ],
)
def test_user_and_token_refusals(data, words, told):
    """What the records don't allow is one clear line with exit code 1."""
    assert command("user", "add", "jane.doe", "--admin").returncode == 0
    done = command(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


# --- verbs that talk to a server --------------------------------------------------------------------------------------


class Api(BaseHTTPRequestHandler):
    """An API that answers from a table and remembers what it was asked."""

    answers: dict[tuple[str, str], Any] = {}
    asked: list[tuple[str, str, str | None, bytes]] = []

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.command, self.path, self.headers.get("Authorization"), body))
        status, answer = self.answers.get((self.command, self.path), (404, {"error": {"message": "Not found."}}))
        encoded = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def api(data) -> Iterator[type[Api]]:
    """A stand-in for the API on a real socket, found by the data folder as a running server is."""
    kind = type("OneApi", (Api,), {"answers": {}, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        data.mkdir()
        (data / "lock").write_text(f"1\nhttp://127.0.0.1:{server.server_address[1]}\n")
        (data / "token").write_text("the-token\n")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield kind
        server.shutdown()
        thread.join()


BUILD = {"id": "b1", "buildNumber": "0.1.1", "status": "RUNNING"}
ACTOR = {"username": "local", "name": "hello", "standbyUrl": "http://local--hello.localhost:8010"}
RUN = {
    "id": "r1",
    "actId": "a1",
    "status": "RUNNING",
    "startedAt": "2026-01-02T03:04:05.678Z",
    "buildNumber": "0.1.1",
}


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 1)])
def test_push(capsys, api, status, code):
    """A folder goes up as an archive; the build's log and the standby address are shown; its outcome is the code."""
    api.answers |= {
        ("POST", "/v2/greenroom/push"): (201, {"data": {"actor": ACTOR, "build": BUILD}}),
        ("GET", "/v2/logs/b1?stream=1"): (200, "2026-01-02T03:04:05.678Z building\n"),
        ("GET", "/v2/actor-builds/b1?waitForFinish=60"): (200, {"data": {**BUILD, "status": status}}),
    }
    got, out, err = greenroom(capsys, "push", str(ROOT / "deploy" / "examples" / "hello"))
    assert got == code
    assert "building" in out
    assert ("http://local--hello.localhost:8010" in out) == (code == 0)
    assert (status in err) == (code == 1)
    method, path, authorization, body = api.asked[0]
    assert (method, path, authorization, body[:2]) == ("POST", "/v2/greenroom/push", "Bearer the-token", b"\x1f\x8b")


def test_abort_of_a_build(capsys, api):
    """An id that is no run's may be a build's; one that is neither is told once."""
    api.answers["POST", "/v2/actor-builds/b1/abort"] = (200, {"data": {**BUILD, "status": "ABORTED"}})
    assert greenroom(capsys, "abort", "b1") == (0, "b1 ABORTED\n", "")
    assert greenroom(capsys, "abort", "b9") == (1, "", "greenroom: Not found.\n")


def test_push_tells_where_the_mistake_is(capsys, api):
    """What the API says about a broken file is passed on as file, line and problem."""
    message = ".actor/actor.json:3: name: a text is expected"
    api.answers["POST", "/v2/greenroom/push"] = (
        400,
        {"error": {"type": "invalid-actor-definition", "message": message}},
    )
    code, out, err = greenroom(capsys, "push", str(ROOT / "deploy" / "examples" / "hello"))
    assert (code, out, err) == (1, "", f"greenroom: {message}\n")


def test_ps_shows_what_lives(capsys, api):
    """Live runs with the names of their Actors; one that was deleted goes by its id."""
    items = [RUN, {**RUN, "id": "r2", "actId": "a2", "status": "ABORTING"}]
    api.answers |= {
        ("GET", "/v2/actor-runs?desc=1&status=READY%2CRUNNING%2CTIMING-OUT%2CABORTING"): (
            200,
            {"data": {"items": items}},
        ),
        ("GET", "/v2/actors/a1"): (200, {"data": ACTOR}),
    }
    code, out, _ = greenroom(capsys, "ps")
    assert code == 0
    rows = [line.split()[:4] for line in out.splitlines()]
    assert rows == [["r1", "local/hello", "0.1.1", "RUNNING"], ["r2", "a2", "0.1.1", "ABORTING"]]


def test_logs_and_abort(capsys, api):
    """A log is printed as it is; an abort waits for the end."""
    api.answers |= {
        ("GET", "/v2/logs/r1"): (200, "one\ntwo\n"),
        ("POST", "/v2/actor-runs/r1/abort?gracefully=1"): (200, {"data": {**RUN, "status": "ABORTING"}}),
        ("GET", "/v2/actor-runs/r1?waitForFinish=60"): (200, {"data": {**RUN, "status": "ABORTED"}}),
    }
    assert greenroom(capsys, "logs", "r1") == (0, "one\ntwo\n", "")
    assert greenroom(capsys, "abort", "r1", "--gracefully") == (0, "r1 ABORTED\n", "")
    assert greenroom(capsys, "logs", "r9") == (1, "", "greenroom: Not found.\n")


ALIAS = {"url": "http://shop.localhost:8010", "kind": "alias", "status": "verified", "whatToDo": "Nothing."}
DOMAIN = {"url": "http://b\u00fc.test:8010", "kind": "domain", "status": "pending", "whatToDo": "Set a TXT record."}


def test_names(capsys, api):
    """They are listed, added, verified and removed; for a domain it is told what to do, away from the output."""
    names = "/v2/greenroom/actors/jane~hello/names"
    api.answers |= {
        ("GET", names): (200, {"data": {"items": [ALIAS, DOMAIN]}}),
        ("POST", names): (201, {"data": DOMAIN}),
        ("POST", f"{names}/b%C3%BC.test/verify"): (409, {"error": {"message": "b\u00fc.test is not proven yet."}}),
        ("DELETE", f"{names}/b%C3%BC.test"): (204, ""),
    }
    code, out, err = greenroom(capsys, "names", "jane/hello")
    assert (code, [line.split() for line in out.splitlines()]) == (
        0,
        [[ALIAS["url"], "alias", "verified"], [DOMAIN["url"], "domain", "pending"]],
    )
    assert err.strip() == "Set a TXT record."
    code, out, err = greenroom(capsys, "names", "jane/hello", "add", "b\u00fc.test")
    assert (code, out, err) == (0, f"{DOMAIN['url']}  domain  pending\n", "Set a TXT record.\n")
    assert json.loads(api.asked[-1][3]) == {"name": "b\u00fc.test"}
    told = "greenroom: b\u00fc.test is not proven yet.\n"
    assert greenroom(capsys, "names", "jane/hello", "verify", "b\u00fc.test") == (1, "", told)
    told = "greenroom: b\u00fc.test is removed.\n"
    assert greenroom(capsys, "names", "jane/hello", "remove", "b\u00fc.test") == (0, "", told)


def test_names_of_an_actor_without_any(capsys, api):
    """Nothing on standard output, and a word that it is so; an action wants a name."""
    api.answers["GET", "/v2/greenroom/actors/hello/names"] = (200, {"data": {"items": []}})
    assert greenroom(capsys, "names", "hello") == (0, "", "greenroom: this Actor has no further names.\n")
    code, out, err = greenroom(capsys, "names", "hello", "add")
    assert (code, out) == (2, "")
    assert "a name is expected after 'add'" in err


def test_nobody_answers(capsys, data, tmp_path):
    """Without a server there is one line that says how to start one."""
    (tmp_path / "token").write_text("some-token-or-other-0123456789")
    code, out, err = greenroom(capsys, "ps", "--url", "http://127.0.0.1:1", "--token-file", str(tmp_path / "token"))
    assert (code, out) == (1, "")
    assert "greenroom serve" in err
    assert err.count("\n") == 1
