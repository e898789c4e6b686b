"""The network rules of a Swarm's nodes: as data, and as the script does them in a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.installation import Installation
from gateway.node_rules import NodeRules, gateway_networks, node_script, tables

RULES = NodeRules(
    installation=Installation("0a1b2c3d"),
    gateways=("198.51.100.7/32",),
    host="198.51.100.7",
    port=8010,
    allow=("192.168.7.0/24",),
)
OTHERS = replace(RULES, installation=Installation("99999999"))

takes_root = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(program) is None for program in ("iptables", "ip", "unshare")),
    reason="takes root, iptables and unshare",
)


@pytest.mark.parametrize(
    ("given", "networks"),
    [
        pytest.param(["10.0.0.5"], ("10.0.0.5/32",), id="address"),
        pytest.param(["10.0.0.9/24", "10.0.0.0/24"], ("10.0.0.0/24",), id="network, twice"),
        pytest.param(["10.1.0.0/16", "10.0.0.1"], ("10.0.0.1/32", "10.1.0.0/16"), id="in order"),
        pytest.param([], (), id="none"),
    ],
)
def test_gateways(given: list[str], networks: tuple[str, ...]) -> None:
    """Addresses and networks as iptables itself writes them."""
    assert gateway_networks(given) == networks


@pytest.mark.parametrize("given", ["0.0.0.0/0", "10.0.0.0/7", "gateway.example.com", "::1", "", "1.2.3.4 -j ACCEPT"])
def test_no_gateways(given: str) -> None:
    """Neither everybody, nor what is no IPv4 address."""
    with pytest.raises(ValueError, match=r"expected|too large"):
        gateway_networks([given])


def test_chains_have_names_of_their_own() -> None:
    """iptables takes 28 characters; none is called as one of the rules of a single engine."""
    names = {name for _, table in tables(RULES) for name in table.chains}
    assert all(len(name) <= 28 and name.startswith("GR-0a1b2c3d-N") for name in names)
    assert names.isdisjoint({name for _, table in tables(OTHERS) for name in table.chains})


@dataclass(frozen=True, slots=True)
class Node:
    """A network namespace; ``run`` runs the script in it."""

    words: tuple[str, ...]
    folder: Path

    def run(self, action: str, rules: NodeRules = RULES, *, expect: int = 0) -> str:
        script = self.folder / "rules.sh"
        script.write_text(node_script(rules))
        done = subprocess.run([*self.words, "sh", str(script), action], capture_output=True, text=True, check=False)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def iptables(self, *words: str, command: str = "iptables") -> str:
        return subprocess.run([*self.words, command, *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """With the chain that an engine makes for others."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; read end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = Node(("nsenter", f"--net=/proc/{holder.pid}/ns/net"), tmp_path)
        found.iptables("-N", "DOCKER-USER")
        yield found
        holder.communicate(b"\n")


@takes_root
def test_install_check_and_remove(node: Node) -> None:
    """Twice does no harm, another Greenroom's rules are another's, and nothing is left in the end."""
    before = [node.iptables("-t", table, "-S") for table in ("filter", "security")]
    assert "not in force" in node.run("check", expect=1)
    node.run("install", OTHERS)
    others = node.iptables("-S")
    for _ in range(2):
        assert "in force" in node.run("install")
        node.run("check")
    listing = node.iptables("-S").splitlines()
    assert listing.count("-A DOCKER-USER -o gs-0a1b2c3d -j GR-0a1b2c3d-NTO") == 1
    assert "-A GR-0a1b2c3d-NTO -s 198.51.100.7/32 -j RETURN" in listing
    assert listing.index("-A GR-0a1b2c3d-NTO -s 198.51.100.7/32 -j RETURN") < listing.index(
        "-A GR-0a1b2c3d-NTO -j DROP"
    )
    node.run("remove")
    assert node.iptables("-S") == others
    node.run("check", OTHERS)
    node.run("remove", OTHERS)
    assert [node.iptables("-t", table, "-S") for table in ("filter", "security")] == before
    node.run("remove")


@takes_root
def test_another_setting_replaces_the_old_one(node: Node) -> None:
    """What gateways were there before may call no more."""
    node.run("install")
    moved = replace(RULES, gateways=("203.0.113.9/32",))
    assert "not in force" in node.run("check", moved, expect=1)
    node.run("install", moved)
    node.run("check", moved)
    assert "198.51.100.7/32 -j RETURN" not in node.iptables("-S", "GR-0a1b2c3d-NTO")


@takes_root
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("-F", "GR-0a1b2c3d-NOUT"), id="chain emptied"),
        pytest.param(("-F", "DOCKER-USER"), id="way there gone"),
        pytest.param(("-t", "security", "-F", "GR-0a1b2c3d-NTO"), id="second time emptied"),
    ],
)
def test_check_finds_what_is_gone(node: Node, words: tuple[str, ...]) -> None:
    """Another firewall has flushed it."""
    node.run("install")
    node.iptables(*words)
    assert "not in force" in node.run("check", expect=1)
    node.run("install")
    node.run("check")


@takes_root
def test_without_an_engine_yet(node: Node) -> None:
    """Its chain is not there: the rules hook into FORWARD."""
    node.iptables("-X", "DOCKER-USER")
    node.run("install")
    assert "-A FORWARD -o gs-0a1b2c3d -j GR-0a1b2c3d-NTO" in node.iptables("-S")
    node.run("check")


def test_a_wrong_word(tmp_path: Path) -> None:
    """It says what can be said."""
    (tmp_path / "rules.sh").write_text(node_script(RULES))
    done = subprocess.run(["sh", str(tmp_path / "rules.sh"), "instal"], capture_output=True, text=True, check=False)
    assert (done.returncode, "install | check | remove" in done.stderr) == (2, True)
