"""The parts of ``loadtests.compare`` that make figures of samples."""

from __future__ import annotations

import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.compare_chart import Bar, chart, drawn_limit, said
from loadtests.compare_figures import LIMITS
from loadtests.compare_profile import top
from loadtests.compare_rounds import Outcome, interleaved, median, median_ratio
from loadtests.compare_samples import Sample, head_text, parse_wrk
from loadtests.compare_targets import NotMeasured, Target, ask, cpu_secs, family_of, free_port
from loadtests.peers.python_stack import application
from loadtests.peers.roster import TEMPLATES
from loadtests.peers.tools import installed, tool

# --- Samples --------------------------------------------------------------------------------------------------------

WRK = """Running 1s test @ http://127.0.0.1:8010/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   128.96us  168.15us   3.95ms   98.79%
  36744 requests in 1.10s, 7.53MB read
Requests/sec:  33412.23
"""


def test_what_wrk_tells_is_read() -> None:
    """The last line counts, which our scripts make it write."""
    facts = parse_wrk(WRK + '{"requests": 36744, "bytes": 7899960, "secs": 1.099717, "errors": 0}\n')
    assert facts == {"requests": 36744, "bytes": 7899960, "secs": 1.099717, "errors": 0}


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("", id="nothing"),
        pytest.param("unable to connect to 127.0.0.1:1\n", id="no connection"),
        pytest.param(WRK, id="without our line"),
        pytest.param(WRK + '{"requests": 100, "bytes": 1, "secs": 1.0, "errors": 1}\n', id="one refused"),
        pytest.param(WRK + '{"requests": 0, "bytes": 0, "secs": 1.0, "errors": 0}\n', id="not one answer"),
    ],
)
def test_a_sample_with_errors_is_none(output: str) -> None:
    """Errors are cheap to send: a proxy that refuses must not look fast."""
    with pytest.raises(NotMeasured):
        parse_wrk(output)


def test_a_sample_in_figures() -> None:
    """0.9 s of CPU for 30,000 requests in 1.5 s: 30 µs each, at 20,000 in a second."""
    sample = Sample(count=30_000, secs=1.5, cpu_secs=0.9)
    assert sample.cpu_us == pytest.approx(30)
    assert sample.per_sec == pytest.approx(20_000)


def test_a_head_is_whole() -> None:
    """One head for all callers, ended by an empty line."""
    head = head_text("GET / HTTP/1.1", "a.test:1", ("Upgrade", "websocket"))
    assert head.startswith("GET / HTTP/1.1\r\nHost: a.test:1\r\nAuthorization: Bearer ")
    assert head.endswith("\r\nUpgrade: websocket\r\n\r\n")
    assert "\n\n" not in head


# --- Rounds ---------------------------------------------------------------------------------------------------------


def target(name: str) -> Target:
    return Target(name=name, title=name, port=1, pids=list, serving=os.getpid, tail=str)


def test_rounds_take_turns_and_begin_with_another_each_time() -> None:
    """One sample of each in every round, and nobody always comes first."""
    order: list[str] = []

    def take(one: Target) -> int:
        order.append(one.name)
        return len(order)

    taken = interleaved([target("a"), target("b"), target("c")], 3, take)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert taken == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_a_target_that_fails_is_left_out_and_told() -> None:
    """The others go on; what it gave before does not count."""
    heard: list[str] = []
    asked: list[str] = []

    def take(one: Target) -> int:
        asked.append(one.name)
        if one.name == "b" and asked.count("b") == 2:
            raise NotMeasured("it broke off")
        return 1

    taken = interleaved([target("a"), target("b")], 3, take, tell=heard.append)
    assert taken == {"a": [1, 1, 1]}
    assert asked.count("b") == 2
    assert heard == ["b is left out: it broke off"]


def test_no_targets_no_samples() -> None:
    """Where nothing serves, nothing is taken."""
    assert interleaved([], 3, lambda one: one) == {}


def test_ratios_are_taken_within_a_round() -> None:
    """A round in which the machine was half as fast for both changes nothing."""
    assert median_ratio([10, 20, 10], [20, 40, 20]) == 0.5


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=9))
def test_the_median_is_one_of_the_values_and_in_their_middle(values: list[float]) -> None:
    """At most half of them are less, and at most half are more."""
    middle = median(values)
    assert middle in values
    assert sum(value < middle for value in values) <= len(values) / 2
    assert sum(value > middle for value in values) <= len(values) / 2


# --- Figures --------------------------------------------------------------------------------------------------------


def test_a_ratio_whose_other_side_is_missing_is_named() -> None:
    """Never assumed: it stands in the report as not measured, and the report does not hold."""
    outcome = Outcome()
    outcome.ratio("cpu_vs_go", {"splice": [1.0]}, "splice", "go", 0.45)
    assert outcome.report.missing == {"cpu_vs_go": "go could not be measured"}
    assert not outcome.report.holds


def test_what_was_not_asked_for_is_neither_measured_nor_missing() -> None:
    """``--only`` leaves the rest out of the verdict."""
    outcome = Outcome(asked=frozenset({"cpu_vs_nginx"}))
    outcome.ratio("cpu_vs_go", {}, "splice", "go", 0.45)
    outcome.ratio("cpu_vs_nginx", {"splice": [3.0], "nginx": [2.0]}, "splice", "nginx", 1.6)
    assert [(figure.name, figure.value, figure.holds) for figure in outcome.report.figures] == [
        ("cpu_vs_nginx", 1.5, True)
    ]
    assert outcome.report.missing == {}
    assert outcome.wants("cpu_vs_go", "cpu_vs_nginx")
    assert not outcome.wants("cpu_vs_go")


def test_the_limits_are_those_that_were_promised() -> None:
    """The figures of the data plane, by name."""
    assert LIMITS == {
        "cpu_vs_go": 0.45,
        "cpu_vs_nginx": 1.6,
        "cpu_varied_vs_nginx": 2.2,
        "asgi_cpu_vs_go": 1.0,
        "stream_cpu_vs_nginx": 0.8,
        "ws_cpu_vs_haproxy": 1.5,
        "added_p50_ms": 1,
        "added_p95_ms": 5,
        "added_p99_ms": 10,
        "mem_10k_hosts_mb": 15,
        "mem_1k_ws_mb": 10,
        "route_add_p95_ms": 10,
        "sse_first_byte_p95_ms": 5.0,
    }


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--only", "cpu_vs_apache"], id="an unknown figure"),
        pytest.param(["--slow"], id="an unknown option"),
    ],
)
def test_a_command_line_that_means_nothing_is_refused(options: list[str]) -> None:
    """Before anything is started."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.compare", *options],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "error:" in done.stderr


# --- The chart ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        pytest.param([5], 5, id="one"),
        pytest.param([5, 100], 100, id="two are drawn as they are"),
        pytest.param([15, 16, 34, 58], 58, id="alike enough"),
        pytest.param([15, 60, 70, 200, 1600], 230, id="one far beyond"),
        pytest.param([10, 20, 70, 80], 23, id="from the first far one on"),
    ],
)
def test_bars_that_would_dwarf_the_others_are_cut(values: list[float], limit: float) -> None:
    """The longest bar that is drawn whole."""
    assert drawn_limit(values) == pytest.approx(limit)


def bars_of(svg: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg).findall("{http://www.w3.org/2000/svg}rect")


def test_the_chart_is_in_order_and_names_everybody() -> None:
    """Least first, lengths in proportion, ours marked, markup in titles harmless."""
    svg = chart("CPU", "us", [Bar("Go & <co>", 40), Bar("nginx", 10), Bar("Greenroom", 20, is_ours=True)], "a note")
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    named = [text for text in texts if text in ("nginx", "Greenroom", "Go & <co>")]
    assert named == ["nginx", "Greenroom", "Go & <co>"]
    widths = [float(bar.attrib["width"]) for bar in bars_of(svg)]
    assert widths == pytest.approx([widths[2] / 4, widths[2] / 2, widths[2]], rel=0.01)
    assert [bar.attrib["class"] for bar in bars_of(svg)] == ["bar", "bar ours", "bar"]


def test_a_cut_bar_is_marked_and_says_its_value() -> None:
    """Nobody takes the drawn length for the value."""
    svg = chart("CPU", "us", [Bar("a", 10), Bar("b", 20), Bar("c", 2000)], "")
    assert svg.count('class="cut"') == 1
    assert "2,000" in svg


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=12))
def test_every_bar_fits_into_the_chart(values: list[float]) -> None:
    """Whatever the values, nothing is drawn beyond the edge, and nothing backwards."""
    svg = chart("CPU", "us", [Bar(str(number), value) for number, value in enumerate(values)], "")
    for bar in bars_of(svg):
        assert float(bar.attrib["width"]) > 0
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= 760


def test_a_chart_of_nothing_is_refused() -> None:
    """An empty picture would look like a result."""
    with pytest.raises(ValueError, match="a bar"):
        chart("CPU", "us", [], "")


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.123"), (15.66, "15.7"), (99.96, "100"), (1611.2, "1,611")])
def test_values_have_three_digits(value: float, text: str) -> None:
    """As many as the measurement is good for."""
    assert said(value) == text


# --- Profiles -------------------------------------------------------------------------------------------------------


def test_the_top_of_a_profile() -> None:
    """Own time and time with callees, a function once per stack; other threads do not count."""
    collapsed = "main;f;g 30\nmain;f 10\nmain;h;h 60\nThread._bootstrap (threading.py:1);wait 900\nnonsense\n"
    assert top(collapsed).splitlines() == [
        " 60.0 %   60.0 %  h",
        " 30.0 %   30.0 %  g",
        " 10.0 %   40.0 %  f",
    ]


# --- Processes ------------------------------------------------------------------------------------------------------


def test_cpu_time_of_a_process_that_works_grows() -> None:
    """By about what the process itself says that it used."""
    own = time.process_time()
    before = cpu_secs(os.getpid())
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    used = cpu_secs(os.getpid()) - before
    assert 0.15 <= used <= time.process_time() - own + 0.05


def test_a_family_is_a_process_and_all_that_descend_from_it() -> None:
    """A master's workers are on its bill."""
    script = "sleep 60 & echo ready; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        family = family_of(started.pid)
        assert len(family) == 2
        assert family[0] == started.pid
        for member in reversed(family):
            os.kill(member, 9)


def test_two_ports_side_by_side_are_free() -> None:
    """Some peers listen on the next one too."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 1)):
        pass


class Answers(http.server.BaseHTTPRequestHandler):
    """Says what it was asked."""

    protocol_version = "HTTP/1.1"
    heads: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.heads.append((self.path, dict(self.headers)))
        said = f"{self.path} {self.headers['Host']} {self.headers['X-More']}".encode()
        self.send_response(203)
        self.send_header("Content-Length", str(len(said)))
        self.send_header("Keep-Alive", "its own")
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def answering() -> Iterator[int]:
    Answers.heads.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_proxy_is_asked_by_host(answering: int) -> None:
    """Status and whole answer."""
    status, answer = ask(answering, "a.test", "/x", lines="X-More: y\r\n")
    assert status == 203
    assert answer.endswith(f"/x a.test:{answering} y".encode())


def test_nobody_there_is_an_error() -> None:
    """A closed port is no answer."""
    with pytest.raises(OSError, match="refused"):
        ask(free_port(), "a.test")


async def test_the_python_stack_forwards_as_the_other_peers_do(answering: int) -> None:
    """By host, with what Greenroom sets, a request id in both directions, and nothing of the connection."""
    app = application({"a.test": f"127.0.0.1:{answering}"})
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        answer = await client.get("http://a.test:99/x%20y?z=1", headers={"X-More": "y", "Connection": "keep-alive"})
        unknown = await client.get("http://b.test/")
    assert (answer.status_code, answer.text) == (203, "/x%20y?z=1 a.test:99 y")
    assert "keep-alive" not in answer.headers
    assert unknown.status_code == 404
    [(_, head)] = Answers.heads
    names = {name.lower(): value for name, value in head.items()}
    assert names["x-actor-request-id"] == answer.headers["x-actor-request-id"]
    assert names["forwarded"] == 'for=192.0.2.1;host="a.test:99";proto=http'
    assert names["x-forwarded-for"] == "192.0.2.1"
    assert names["via"] == "1.1 python"


def test_varied_requests_are_varied(answering: int, tmp_path: Path) -> None:
    """Every one has a traceparent and a cookie of its own; hosts and answers' lengths go round."""
    wrk = tool("wrk") if os.environ.get("CI") else installed("wrk")  # there nothing is left out
    if wrk is None:
        pytest.skip("wrk is not installed")
    fixed = tmp_path / "fixed"
    fixed.write_text("X-More: y\r\n")
    hosts = [f"h{number}.test" for number in range(4)]
    command = [str(wrk.path), "-t1", "-c4", "-d1s", "-s", str(TEMPLATES / "varied.lua")]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{answering}/", "--", str(fixed), *hosts],
        env={**os.environ, **wrk.environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    facts = parse_wrk(done.stdout)
    assert facts["requests"] > 64
    heads = [head for _, head in Answers.heads]
    traces = [head["traceparent"] for head in heads]
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace) for trace in traces)
    assert len(set(traces)) == len(traces)
    assert len({head["Cookie"] for head in heads}) == len(heads)
    assert {head["Host"] for head in heads} == set(hosts)
    assert {path for path, _ in Answers.heads} == {f"/v{number}" for number in range(64)}
    assert all(head["X-More"] == "y" for head in heads)
