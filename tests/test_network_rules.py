"""The network rules: as data, in the real iptables of a network namespace of its own, and the note of them."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import installed_rules, iptables
from gateway.commands import network_rules as command
from gateway.commands.effective_settings import load_settings
from gateway.installation import Installation
from gateway.installed_rules import rules_problem, strangers_problem, table_for, wanted_rules
from gateway.network_rules import (
    CLOSED_NETWORKS,
    VERSION,
    NetworkRules,
    allowed_networks,
    difference,
    has_any,
    in_words,
    installation_text,
    is_local_stub,
    problems,
    removal_text,
    resolvers_in,
    script,
    table_v4,
    to_json,
)
from gateway.refusals import Refused
from gateway.settings import Settings

BOOT = "6a1f0000-1111-2222-3333-444455556666"
RULES = NetworkRules(
    installation=Installation("0a1b2c3d"),
    subnet="10.77.0.0/24",
    gateway="10.77.0.1",
    host="10.77.0.1",
    port=8010,
    resolvers=("10.255.0.53",),
    allow=("192.168.7.0/24",),
)
OTHERS = replace(
    RULES, installation=Installation("99999999"), subnet="10.88.0.0/24", gateway="10.88.0.1", host="10.88.0.1"
)
PLACES = (iptables.FILTER_V4, iptables.SECURITY_V4, iptables.FILTER_V6)


# -- as data -----------------------------------------------------------------------------------------------------------


def test_names_are_short_enough_and_all_its_own() -> None:
    """iptables takes 28 characters, and nothing of another installation's begins alike."""
    for place in PLACES:
        names = table_for(RULES, place, "").chains
        assert names
        assert all(len(name) <= 28 and name.startswith("GR-0a1b2c3d-") for name in names)


@pytest.mark.parametrize(
    ("text", "resolvers"),
    [
        pytest.param("nameserver 192.0.2.53\nnameserver 10.0.0.2\n", ("192.0.2.53", "10.0.0.2"), id="two"),
        pytest.param("search example.com\n\n# nameserver 1.1.1.1\n", (), id="none"),
        pytest.param("nameserver 127.0.0.53\n", (), id="asked from the machine itself"),
        pytest.param("nameserver 2001:db8::1\nnameserver fe80::1%eth0\n", (), id="IPv6 likewise"),
        pytest.param("nameserver 10.0.0.2\nnameserver 10.0.0.2 extra\n", ("10.0.0.2",), id="twice"),
        pytest.param("nameserver\nnameserver nonsense\nnameserver 10.0.0.2/8 -j ACCEPT\n", (), id="broken lines"),
    ],
)
def test_resolvers(text: str, resolvers: tuple[str, ...]) -> None:
    """Exactly the servers that the engine asks from within a container."""
    assert resolvers_in(text) == resolvers


@pytest.mark.parametrize(
    ("text", "is_stub"),
    [
        pytest.param("nameserver 127.0.0.53\noptions edns0\n", True, id="systemd-resolved"),
        pytest.param("nameserver 127.0.0.53\nnameserver 10.0.0.2\n", False, id="among others"),
        pytest.param("nameserver 127.0.0.1\n", False, id="another one on loopback"),
        pytest.param("", False, id="empty"),
    ],
)
def test_local_stub(text: str, is_stub: bool) -> None:
    """Only then the engine reads the other file."""
    assert is_local_stub(text) is is_stub


@pytest.mark.parametrize(
    ("given_", "allowed"),
    [
        pytest.param(["10.1.2.3"], ("10.1.2.3/32",), id="an address"),
        pytest.param(["10.1.2.3/24"], ("10.1.2.0/24",), id="bits of the host"),
        pytest.param(["192.168.0.0/16", "10.0.0.0/8", "192.168.0.0/16"], ("10.0.0.0/8", "192.168.0.0/16"), id="order"),
        pytest.param([], (), id="nothing"),
    ],
)
def test_allowed_networks(given_: list[str], allowed: tuple[str, ...]) -> None:
    """As iptables writes them, each once, whatever the order."""
    assert allowed_networks(given_) == allowed


@pytest.mark.parametrize(
    "text", ["", "example.com", "::1", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.1 -j ACCEPT", "10.0.0.0/7", "0.0.0.0/0"]
)
def test_what_is_no_network_is_refused(text: str) -> None:
    """Also what would allow everything; the message says what is expected."""
    with pytest.raises(ValueError, match=r"expected, not|too large a network"):
        allowed_networks([text])


def test_the_setting_is_checked_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a variable as a list with commas; a mistake names the setting."""
    monkeypatch.setenv("GREENROOM_DOCKER_ALLOW", "10.2.0.0/16, 10.1.0.9")
    assert load_settings({}).docker_allow == ("10.1.0.9/32", "10.2.0.0/16")
    with pytest.raises(Refused, match=r"docker_allow.*10\.20\.0\.0/24 is expected"):
        load_settings({"docker_allow": "intranet"})
    with pytest.raises(Refused, match="docker_allow"):
        load_settings({"docker_allow": ",".join(f"10.0.0.{n}" for n in range(65))})


DOCUMENTATION = [ipaddress.IPv4Network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")

addresses = st.one_of(
    st.ip_addresses(v=4),
    *(st.ip_addresses(v=4, network=network) for network in (*CLOSED_NETWORKS, *RULES.allow)),
)


@given(address=addresses)
def test_an_address_is_reached_exactly_if_it_is_public_or_allowed(address: ipaddress.IPv4Address) -> None:
    """The rules for packets to elsewhere, read as the kernel reads them: the first one that matches decides."""
    verdict = "RETURN"
    for rule in table_v4(RULES).chains["GR-0a1b2c3d-OUT"]:
        words = rule.split()
        if words[0] == "-d" and "--dport" not in words and address in ipaddress.IPv4Network(words[1]):
            verdict = words[words.index("-j") + 1]
            break
    is_public = address.is_global and not address.is_multicast
    if any(address in network for network in DOCUMENTATION):  # lead nowhere, and stand for the internet in tests
        is_public = True
    if address in PROTOCOLS:  # which of them are private depends on Python's version
        is_public = False
    is_allowed = address in ipaddress.IPv4Network(RULES.allow[0])
    assert verdict == ("RETURN" if is_public or is_allowed else "REJECT")


def test_words_name_what_is_allowed() -> None:
    """What an administrator reads is what the rules do."""
    text = "\n".join(in_words(RULES))
    for part in ("10.77.0.1, port 8010", "10.255.0.53, port 53", "192.168.7.0/24", "internet", "no neighbour"):
        assert part in text


# -- the note ----------------------------------------------------------------------------------------------------------


def test_a_note_is_believed_for_exactly_what_it_says() -> None:
    """The rules that were installed, in this boot of the machine, and no others."""
    note = to_json(RULES, BOOT)
    assert difference(RULES, note, BOOT) is None
    assert difference(RULES, None, BOOT) == "the network rules are not installed"
    assert "started anew" in str(difference(RULES, note, "another boot"))
    newer = json.dumps({**json.loads(note), "version": VERSION + 1})
    assert "another version" in str(difference(RULES, newer, BOOT))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(
            {"installation": Installation("ffffffff")}, "0a1b2c3d, not for the installation ffffffff", id="id"
        ),
        pytest.param({"subnet": "10.78.0.0/24"}, "not for the subnet 10.78.0.0/24", id="subnet"),
        pytest.param({"gateway": "10.77.0.2"}, "not for the gateway 10.77.0.2", id="gateway"),
        pytest.param({"host": "10.77.0.9"}, "not for Greenroom at 10.77.0.9", id="host"),
        pytest.param({"port": 9000}, "for the port 8010, not for the port 9000", id="port"),
        pytest.param({"allow": ()}, "not for docker_allow = (none)", id="allow"),
        pytest.param({"resolvers": ("10.1.1.1",)}, "not for the name servers 10.1.1.1", id="resolvers"),
    ],
)
def test_a_note_for_something_else_is_none(change: dict[str, object], told: str) -> None:
    """Whatever differs is named. Other name servers isolate no less, so a run need not wait for them."""
    wanted = replace(RULES, **change)  # type: ignore[arg-type]
    note = to_json(RULES, BOOT)
    assert told in str(difference(wanted, note, BOOT))
    lenient = difference(wanted, note, BOOT, heeds_resolvers=False)
    assert (lenient is None) is ("resolvers" in change)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(note=st.text(max_size=50) | json_values.map(json.dumps))
def test_a_broken_note_is_none(note: str) -> None:
    """Whatever stands there, nothing is believed and nothing raised."""
    assert "can't be read" in str(difference(RULES, note, BOOT))


@given(
    key=st.sampled_from(["installation", "subnet", "gateway", "host", "port", "allow", "version", "boot_id"]),
    value=json_values,
)
def test_a_changed_note_is_none(key: str, value: object) -> None:
    """No single value may be another one."""
    told = json.loads(to_json(RULES, BOOT))
    if value == told[key] or (key == "version" and value is True):  # 1 == True
        return
    assert difference(RULES, json.dumps(told | {key: value}), BOOT) is not None


# -- in a real iptables ------------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(program) is None for program in ("iptables", "ip")),
    reason="takes root, iptables and ip",
)

_CONNECT = """
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=0.7).close()
        print(target)
    except OSError:
        pass
"""
_LISTEN = """
import socket, sys
servers = [socket.create_server(("", int(port))) for port in sys.argv[1:]]
print("up", flush=True)
sys.stdin.read()
"""
RUN = "10.77.0.2"
NEIGHBOUR = "10.77.0.3"


@dataclass(frozen=True)
class Net:
    """
    A machine that is a network namespace, with its programs iptables first in PATH, and around it: two runs on the
    bridge, and an outside that has private addresses and one of the internet.
    """

    name: str

    def reached(self, place: str, *targets: str) -> set[str]:
        """Which *targets* (``host:port``) accept a connection from the namespace *place*."""
        words = ["ip", "netns", "exec", f"{self.name}-{place}", sys.executable, "-c", _CONNECT, *targets]
        return set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())

    def iptables(self, *words: str) -> str:
        """As the machine's root."""
        inside = ["ip", "netns", "exec", self.name, "iptables", "-w", *words]
        return subprocess.run(inside, capture_output=True, text=True, check=True).stdout


def _ip(*words: str, must: bool = True) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not must, f"ip {' '.join(words)}: {done.stderr}"


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    """A machine without an engine, yet with the chain that an engine keeps; iptables in this process is its own."""
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        pytest.skip("the kernel module br_netfilter is not loaded")
    net = Net(f"grt-{os.getpid()}")
    places = {"run": (RUN,), "next": (NEIGHBOUR,), "out": ("203.0.113.9", "10.9.9.9", "192.168.7.7", "10.255.0.53")}
    for name in ("iptables", "ip6tables"):
        for program in (name, f"{name}-restore"):
            wrapper = tmp_path / "bin" / program
            wrapper.parent.mkdir(exist_ok=True)
            wrapper.write_text(f'#!/bin/sh\nexec ip netns exec {net.name} {shutil.which(program)} "$@"\n')
            wrapper.chmod(0o755)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        _ip("netns", "add", net.name)
        _ip("-n", net.name, "link", "set", "lo", "up")
        _ip("-n", net.name, "link", "add", RULES.installation.bridge, "type", "bridge")
        _ip("-n", net.name, "addr", "add", "10.77.0.1/24", "dev", RULES.installation.bridge)
        _ip("-n", net.name, "link", "set", RULES.installation.bridge, "up")
        for place, addresses in places.items():
            space = f"{net.name}-{place}"
            _ip("netns", "add", space)
            _ip("-n", net.name, "link", "add", place, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", net.name, "link", "set", place, "up")
            _ip("-n", space, "link", "set", "eth0", "up")
            gateway = "10.77.0.1"
            if place == "out":
                gateway = "203.0.113.1"
                _ip("-n", net.name, "addr", "add", f"{gateway}/24", "dev", place)
            else:
                _ip("-n", net.name, "link", "set", place, "master", RULES.installation.bridge)
            for index, address in enumerate(addresses):
                _ip("-n", space, "addr", "add", f"{address}/{32 if index else 24}", "dev", "eth0")
            for address in addresses[1:]:
                _ip("-n", net.name, "route", "add", address, "via", addresses[0])
            _ip("-n", space, "route", "add", "default", "via", gateway)
        switches = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables"
        subprocess.run(["ip", "netns", "exec", net.name, "sh", "-c", switches], check=True)
        net.iptables("-N", "DOCKER-USER")
        net.iptables("-A", "DOCKER-USER", "-j", "RETURN")
        net.iptables("-I", "FORWARD", "-j", "DOCKER-USER")
        for space, ports in (("", ("8010", "22")), ("-next", ("80",)), ("-run", ("80",)), ("-out", ("53", "80"))):
            words = ["ip", "netns", "exec", f"{net.name}{space}", sys.executable, "-c", _LISTEN, *ports]
            servers.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        for server in servers:
            assert server.stdout is not None
            assert server.stdout.readline() == b"up\n"
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        yield net
    finally:
        for server in servers:
            server.kill()
            server.communicate()
        for space in ("", *(f"-{place}" for place in places)):
            _ip("netns", "del", f"{net.name}{space}", must=False)


def _install(rules: NetworkRules, *, but: iptables.Place | None = None) -> None:
    for place in iptables.places():
        if place != but:
            iptables.change(
                place, lambda listing, place=place: installation_text(table_for(rules, place, listing), listing)
            )


def _remove(rules: NetworkRules) -> None:
    for place in iptables.places():
        iptables.change(place, lambda listing, place=place: removal_text(rules.installation, place.table, listing))


def _found(rules: NetworkRules) -> list[str]:
    listings = {place: iptables.listing(place) for place in iptables.places()}
    return [
        problem
        for place, listing in listings.items()
        for problem in problems(table_for(rules, place, listing), listing)
    ]


MACHINE = {"10.77.0.1:22", "203.0.113.1:22", "203.0.113.1:8010"}
CLOSED = {"10.9.9.9:80", "10.255.0.53:80", f"{NEIGHBOUR}:80"}
OPEN = {"10.77.0.1:8010", "203.0.113.9:80", "192.168.7.7:80", "10.255.0.53:53"}


@needs_root
def test_packets_pass_or_not(net: Net) -> None:
    """All is open without the rules; with them a run reaches what it may and nothing else, and nobody outside a run."""
    everything = MACHINE | CLOSED | OPEN
    assert net.reached("run", *everything) == everything
    assert net.reached("out", f"{RUN}:80", "10.77.0.1:8010") == {f"{RUN}:80", "10.77.0.1:8010"}
    _install(RULES)
    assert net.reached("run", *everything) == OPEN
    assert net.reached("out", f"{RUN}:80", "10.77.0.1:8010") == set()
    _remove(RULES)
    assert net.reached("run", *everything) == everything


@needs_root
def test_what_is_allowed_may_be_this_machine(net: Net) -> None:
    """All ports of an address in docker_allow are open, of no other one, and never a neighbour's."""
    _install(replace(RULES, allow=("10.77.0.0/24", "203.0.113.1/32")))
    assert net.reached("run", *MACHINE, *CLOSED) == {"203.0.113.1:22", "203.0.113.1:8010", "10.77.0.1:22"}
    _install(replace(RULES, allow=("203.0.113.1/32",)))
    assert net.reached("run", *MACHINE, *CLOSED) == {"203.0.113.1:22", "203.0.113.1:8010"}


@needs_root
def test_nothing_opens_while_an_engine_puts_its_own_rules_anew(net: Net) -> None:
    """The way to DOCKER-USER is taken out for a moment at each new network; what the table security has stays."""
    _install(RULES)
    net.iptables("-D", "FORWARD", "-j", "DOCKER-USER")
    assert net.reached("run", *CLOSED, *OPEN) == OPEN
    assert net.reached("out", f"{RUN}:80") == set()
    assert _found(RULES) == []  # such a moment is no reason to call the rules incomplete


@needs_root
def test_rules_are_installed_as_often_as_one_likes(net: Net) -> None:
    """The second time changes nothing; another port replaces the first; others' rules and installations stay."""
    net.iptables("-A", "INPUT", "-s", "192.0.2.99/32", "-j", "DROP")
    foreign = net.iptables("-S")
    assert _found(RULES)
    _install(OTHERS)
    for rules in (RULES, RULES, replace(RULES, port=8020)):
        _install(rules)
        assert _found(rules) == []
        assert _found(OTHERS) == []
    listing = net.iptables("-S")
    assert listing.count("--dport 8020") == 1
    assert f"-d 10.77.0.1/32 -p tcp -m tcp --dport {RULES.port}" not in listing
    assert listing.count("-j GR-0a1b2c3d-IN") == 1
    _remove(RULES)
    assert not has_any(RULES.installation, iptables.listing(iptables.FILTER_V4))
    assert _found(OTHERS) == []
    _remove(OTHERS)
    assert net.iptables("-S") == foreign
    assert iptables.listing(iptables.SECURITY_V4).count("-A") == 0
    _remove(OTHERS)  # nothing is there: no error


@needs_root
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        pytest.param(
            "-I INPUT -j ACCEPT", "INPUT of filter does not lead to GR-0a1b2c3d-IN before all", id="overtaken"
        ),
        pytest.param("-I DOCKER-USER -j RETURN", "DOCKER-USER of filter does not lead", id="overtaken in forwarding"),
        pytest.param("-F INPUT", "INPUT of filter does not lead to GR-0a1b2c3d-GW", id="flushed"),
        pytest.param("-F DOCKER-USER", "does not lead to GR-0a1b2c3d-OUT", id="flushed in forwarding"),
        pytest.param("-t security -F FORWARD", "FORWARD of security does not lead", id="the backstop flushed"),
        pytest.param("-I GR-0a1b2c3d-IN -p tcp -j ACCEPT", "filter has other rules in GR-0a1b2c3d-IN", id="opened"),
        pytest.param("-D GR-0a1b2c3d-OUT 8", "other rules in GR-0a1b2c3d-OUT", id="one taken out"),
    ],
)
def test_harm_is_found_and_mended(net: Net, harm: str, told: str) -> None:
    """What another program does to the rules is named, and installing once more puts it right."""
    _install(RULES)
    assert _found(RULES) == []
    net.iptables(*harm.split())
    assert any(told in problem for problem in _found(RULES)), _found(RULES)
    _install(RULES)
    assert _found(RULES) == []
    assert net.reached("run", "10.77.0.1:22", "10.9.9.9:80", "10.77.0.1:8010") == {"10.77.0.1:8010"}


@needs_root
def test_the_printed_script_does_the_same(net: Net, tmp_path: Path) -> None:
    """Run by a shell, twice, it leaves exactly what the command itself installs."""
    tables = [(place.command, table_for(RULES, place, iptables.listing(place))) for place in iptables.places()]
    path = tmp_path / "rules.sh"
    path.write_text(script(tables))
    for _ in range(2):
        subprocess.run(["sh", "-e", path], check=True)
        assert _found(RULES) == []


@needs_root
def test_without_an_engine_s_chain_forward_is_used(net: Net) -> None:
    """An engine that leaves iptables alone has none; the rules hold all the same."""
    net.iptables("-D", "FORWARD", "-j", "DOCKER-USER")
    net.iptables("-F", "DOCKER-USER")
    net.iptables("-X", "DOCKER-USER")
    _install(RULES, but=iptables.SECURITY_V4)
    assert "-A FORWARD -i gr-0a1b2c3d -j GR-0a1b2c3d-OUT" in net.iptables("-S")
    assert net.reached("run", *CLOSED, *OPEN) == OPEN


@needs_root
def test_what_iptables_refuses_is_told(net: Net) -> None:
    """Its own words, and nothing of the change is applied."""
    before = net.iptables("-S")
    with pytest.raises(Refused, match="iptables-restore failed"):
        iptables.change(iptables.FILTER_V4, lambda _: "*filter\n:GR-0a1b2c3d-IN - [0:0]\n-A NOWHERE -j DROP\nCOMMIT\n")
    assert net.iptables("-S") == before


# -- what is asked at a start ------------------------------------------------------------------------------------------


@pytest.fixture
def machine(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    """The same machine, with its notes and interfaces in folders of the test's own."""
    interfaces = tmp_path / "net"
    (interfaces / RULES.installation.bridge).mkdir(parents=True)
    monkeypatch.setattr(installed_rules, "_NOTES", tmp_path / "run" / "greenroom")
    monkeypatch.setattr(installed_rules, "_INTERFACES", interfaces)
    return net


@needs_root
def test_root_asks_iptables_and_corrects_the_note(machine: Net) -> None:
    """A note that is no longer true is taken away, one that is missing is written; both without being told."""
    notes = installed_rules._NOTES
    assert rules_problem(RULES) == "the network rules are not installed"
    _install(RULES)
    assert rules_problem(RULES) is None
    (note,) = notes.iterdir()
    assert note.stat().st_mode & 0o777 == 0o644
    assert installed_rules.noted_problem(RULES) is None
    machine.iptables("-F", "INPUT")
    assert installed_rules.noted_problem(RULES) is None  # nobody has looked yet
    assert "not complete" in str(rules_problem(RULES))
    assert list(notes.iterdir()) == []


@needs_root
def test_others_believe_the_note_of_root_alone(machine: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root iptables is not asked; a note that anybody else has written is none."""
    installed_rules.write_note(RULES)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert rules_problem(RULES) is None  # though nothing is in force: it can't know
    (note,) = installed_rules._NOTES.iterdir()
    os.chown(note, 65534, 65534)
    assert rules_problem(RULES) == "the network rules are not installed"


@needs_root
def test_a_bridge_that_is_elsewhere_is_told(machine: Net) -> None:
    """Rules of this machine concern nobody when the engine keeps its bridges in another network namespace."""
    (installed_rules._INTERFACES / RULES.installation.bridge).rmdir()
    assert "network namespace of its own" in str(rules_problem(RULES))


def _settings(data: Path, **values: object) -> Settings:
    data.mkdir(exist_ok=True)
    (data / "installation").write_text("0a1b2c3d\n")
    return load_settings({"data": data, "launcher": "docker", "docker_subnet": RULES.subnet, **values})


@needs_root
def test_strangers_wait_for_the_rules(machine: Net, tmp_path: Path) -> None:
    """Refused with what to do; with the rules noted, or with trust, there is nothing to say."""
    settings = _settings(tmp_path / "data")
    why = str(strangers_problem(settings, 8010))
    assert "not installed" in why
    assert f"greenroom network-rules --data {tmp_path / 'data'}" in why
    assert "--trust-users" in why
    assert strangers_problem(_settings(tmp_path / "data", trust_users=True), 8010) is None
    installed_rules.write_note(replace(wanted_rules(settings, 8010), resolvers=("192.0.2.1",)))
    assert strangers_problem(settings, 8010) is None
    assert "for the port 8010, not for the port 8011" in str(strangers_problem(settings, 8011))
    assert strangers_problem(_settings(tmp_path / "data", docker_subnet=None), 8010)


def test_wanted_rules_need_an_address(tmp_path: Path) -> None:
    """Runs reach a name or an IPv6 address by no rule."""
    for host in ("greenroom.example.com", "::1"):
        with pytest.raises(Refused, match="no IPv4 address"):
            wanted_rules(_settings(tmp_path / "data", run_host=host), 8010)


def test_the_command_names_what_it_needs(tmp_path: Path) -> None:
    """What the server was told and root's own settings would not say."""
    settings = _settings(tmp_path / "a b", docker_allow="10.2.0.0/16", docker_host="unix:///s", run_host="10.1.0.1")
    assert installed_rules.command_for(settings) == (
        f"greenroom network-rules --data '{tmp_path / 'a b'}' --set docker_host=unix:///s "
        "--set docker_allow=10.2.0.0/16 --set run_host=10.1.0.1"
    )
    assert "run_host" not in installed_rules.command_for(_settings(tmp_path / "c", run_host=RULES.gateway))


# -- the command line --------------------------------------------------------------------------------------------------


def _greenroom(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "network-rules", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        pytest.param(["--data", "/nowhere/at/all"], 2, "there is no data folder /nowhere/at/all", id="no data folder"),
        pytest.param(["--check", "--remove"], 2, "not allowed with argument", id="two at once"),
        pytest.param(["--set", "docker_allow=intranet"], 2, "is expected", id="no network"),
        pytest.param(["--data", "DATA", "--port", "0"], 1, "give it by --port N", id="no port known"),
        pytest.param(
            ["--data", "DATA", "--print", "--set", "docker_host=unix:///nowhere.sock"], 1, "engine", id="no engine"
        ),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path: Path, words: list[str], code: int, told: str) -> None:
    """What is wrong, and what to do; never a traceback."""
    done = _greenroom(*(str(tmp_path) if word == "DATA" else word for word in words))
    assert done.returncode == code, done.stderr
    assert told in done.stderr.replace("Docker engine", "engine")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("action", ["install", "remove"])
def test_root_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """Nothing is tried without it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refused, match=r"takes root: run it with sudo, naming the same data folder by --data DIR"):
        command.run(_settings(tmp_path / "data"), action)


def test_a_machine_without_iptables_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(iptables, "_PLACES", str(tmp_path))
    with pytest.raises(Refused, match="iptables is not installed: install the package iptables"):
        iptables.places()
