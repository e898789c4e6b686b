"""The peers' configurations: what is filled in, and that each program accepts its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from loadtests.compare_upstreams import LENGTHS, body, small_configuration
from loadtests.peers.roster import PEERS, QUICK, TEMPLATES, Peer, Site, write_configuration
from loadtests.peers.templates import TemplateError, Upstream, for_upstreams, render
from loadtests.peers.tools import installed, tool

UPSTREAMS = (
    Upstream(name="small-0", host="local--small-0.localhost", port=9101),
    Upstream(name="big", host="local--big.localhost", port=9102),
)
BY_NAME = {peer.name: peer for peer in PEERS}


def site(folder: Path) -> Site:
    return Site(port=9100, folder=folder, upstreams=UPSTREAMS)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("port @PORT@;\n", "port 1;\n", id="a value"),
        pytest.param("@PORT@@PORT@", "11", id="side by side"),
        pytest.param("a@b.example @port@", "a@b.example @port@", id="what is no place stays"),
        pytest.param("# @EACH\n@NAME@=@UPSTREAM@\n# @END\nend\n", "a=2\nb=3\nend\n", id="a block for each"),
        pytest.param("  # @EACH\n  @NAME@ @PORT@\n  # @END\n", "  a 1\n  b 1\n", id="indented, with an outer value"),
        pytest.param("# @EACH\n# @END\n", "", id="an empty block"),
        pytest.param("# Lines between @EACH and @END\n", "# Lines between @EACH and @END\n", id="words in a comment"),
    ],
)
def test_templates_are_filled_in(template: str, expected: str) -> None:
    """Places get their values, blocks stand once for each upstream, everything else stays as it is."""
    each = for_upstreams([Upstream("a", "a.test", 2), Upstream("b", "b.test", 3)])
    assert render(template, {"PORT": 1}, each) == expected


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("@WHO@\n", id="no value"),
        pytest.param("# @EACH\n@NAME@\n", id="no end"),
        pytest.param("# @END\n", id="no beginning"),
        pytest.param("@NAME@\n", id="an upstream's name outside of a block"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_told(template: str) -> None:
    """A misspelt place never gets into a configuration as it stands."""
    with pytest.raises(TemplateError):
        render(template, {"PORT": 1}, for_upstreams(UPSTREAMS))


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_configuration_names_every_upstream_and_no_place_is_left(peer: Peer, tmp_path: Path) -> None:
    """Every upstream is reachable through every peer, by its host."""
    write_configuration(peer, site(tmp_path))
    written = "".join((tmp_path / name).read_text() for name in peer.templates)
    said = written + " ".join(peer.command(site(tmp_path), Path("program")))
    assert not re.search(r"@[A-Z]+@", said)
    if peer.configure is None:  # else its routes are set by its API
        for upstream in UPSTREAMS:
            assert upstream.host in said
            assert str(upstream.port) in said
    assert "9100" in said


def test_the_quick_comparison_is_with_the_peers_of_its_figures() -> None:
    """Every ratio of the figures' table has its other side in the quick comparison too."""
    assert {"nginx", "haproxy", "go"} <= set(QUICK) <= set(BY_NAME)


@dataclass(frozen=True)
class Check:
    """How a program is asked whether it likes a configuration."""

    peer: str
    options: tuple[str, ...]


@pytest.mark.parametrize(
    "check",
    [
        Check("nginx", ("-t", "-q", "-p", "{folder}", "-c", "{folder}/nginx.conf")),
        Check("nginx_large_buffers", ("-t", "-q", "-p", "{folder}", "-c", "{folder}/nginx.conf")),
        Check("haproxy", ("-c", "-f", "{folder}/haproxy.cfg")),
        Check("caddy", ("validate", "--adapter=caddyfile", "--config={folder}/Caddyfile")),
        Check("envoy", ("--mode", "validate", "-c", "{folder}/envoy.yaml")),
    ],
    ids=lambda check: check.peer,
)
def test_the_program_accepts_its_configuration(check: Check, tmp_path: Path) -> None:
    """Where the program is there, it finds nothing to object to."""
    peer = BY_NAME[check.peer]
    found = tool(peer.tool) if os.environ.get("CI") else installed(peer.tool)  # there nothing is left out
    if found is None:
        pytest.skip(f"{peer.title} is not installed")
    write_configuration(peer, site(tmp_path))
    command = [str(found.path), *(option.format(folder=tmp_path) for option in check.options)]
    environment = {**os.environ, **found.environment, "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["traefik.yml", "traefik-routes.yml", "envoy.yaml"])
def test_yaml_is_yaml(name: str, tmp_path: Path) -> None:
    """Also where the program is not there."""
    values = {"PORT": 9100, "FOLDER": tmp_path}
    text = render((TEMPLATES / name).read_text(), values, for_upstreams(UPSTREAMS))
    assert yaml.safe_load(text)


def test_the_upstream_answers_with_many_lengths(tmp_path: Path) -> None:
    """A steady answer of 100 bytes, and 64 others of which no two are as long."""
    text = small_configuration(port=1, folder=tmp_path)
    bodies = re.findall(r'return 200 "(\d*)"', text)
    assert len(bodies[0]) == 100
    assert len({len(one) for one in bodies[1:]}) == len(bodies) - 1 == LENGTHS
    assert all(f"location = /v{number} " in text for number in range(LENGTHS))


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 100, 1310])
def test_a_body_is_as_long_as_it_should_be(length: int) -> None:
    """The sizes in the configuration are the sizes on the wire."""
    assert len(body(length)) == length


@pytest.mark.parametrize("script", ["steady.lua", "varied.lua", "upload.lua"])
def test_every_script_tells_what_was_done_in_the_same_way(script: str) -> None:
    """Each ends with a line of JSON of the same four facts."""
    text = (TEMPLATES / script).read_text()
    line = re.search(r"'(\{.*\})'", text)
    assert line is not None
    facts = json.loads(line[1].replace("%d", "1").replace("%.6f", "1.0"))
    assert set(facts) == {"requests", "bytes", "secs", "errors"}
