"""
No I/O: what runs in containers may reach on the network and who may reach them, as rules of iptables.

The chains of one installation, all named by its id (``GR-<id>-…``), and what sends packets to them::

    IN   runs → this machine       from INPUT, by the bridge that packets come from
    GW   others → the bridge's own address, where Greenroom listens for runs      from INPUT
    OUT  runs → anything else      from DOCKER-USER, which the engine keeps before its own rules
    TO   anybody → runs            from DOCKER-USER

The gateway itself reaches runs from this machine, so its packets pass none of the last two. An engine that is
restarted makes its own chains anew, but neither touches INPUT nor empties DOCKER-USER. Yet whenever it makes a network,
it takes the way to DOCKER-USER out and puts it in again, and for a few milliseconds nothing is closed. So OUT and TO
stand a second time in the table ``security``, which packets pass afterwards and in which nobody else has rules.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from gateway.installation import Installation

# Counted up whenever the same network gets other rules, so that those of an earlier Greenroom are told apart.
VERSION = 1

FILTER = "filter"
SECURITY = "security"

INPUT = "INPUT"
FORWARD = "FORWARD"
DOCKER_USER = "DOCKER-USER"

# Everything that is not the internet. Source: the IANA registry of special-purpose IPv4 addresses, less the networks
# for documentation, which lead nowhere anyway.
CLOSED_NETWORKS = (
    "0.0.0.0/8",  # "this" network
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # between carriers and their customers
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local, among it the metadata of clouds
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocols
    "192.168.0.0/16",  # private
    "198.18.0.0/15",  # benchmarks
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and the broadcast address
)

_LARGEST_ALLOWED = 8

# An Actor that tries what is closed learns it at once, instead of waiting for its own timeout.
REFUSE = "REJECT --reject-with icmp-admin-prohibited"
REPLIES = "-m conntrack --ctstate RELATED,ESTABLISHED"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRules:
    """
    What one Greenroom's rules are made from.

    ``gateway`` is the bridge's own address, ``host`` and ``port`` are where Greenroom listens for runs: the same
    address unless the setting run_host names another. ``resolvers``: see ``resolvers_in``. ``allow``: networks that
    runs may reach although they are not the internet.
    """

    installation: Installation
    subnet: str
    gateway: str
    host: str
    port: int
    resolvers: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()

    def chain(self, part: str) -> str:
        """The full name of the chain *part*, e.g. ``GR-0a1b2c3d-IN``."""
        return chain_name(self.installation, part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One rule in a chain that is not ours: what of *chain*'s packets goes to our chain *target*."""

    chain: str
    match: str
    target: str

    @property
    def rule(self) -> str:
        """Without the chain, as iptables itself writes it."""
        return f"{self.match} -j {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All of ours in one table of iptables: chains by name, each a list of rules, and their hooks."""

    name: str
    chains: dict[str, tuple[str, ...]]
    hooks: tuple[Hook, ...]


def chain_name(installation: Installation, part: str = "") -> str:
    """``GR-<id>-<part>``; without *part*, what the names of all chains of *installation* begin with."""
    return f"GR-{installation.id}-{part}"


def table_v4(rules: NetworkRules, forward: str = DOCKER_USER) -> Table:
    """The rules for IPv4; *forward* is the chain by which forwarded packets come to ours."""
    bridge = rules.installation.bridge
    dns = [
        f"-d {resolver}/32 -p {protocol} -m {protocol} --dport 53"
        for resolver in rules.resolvers
        for protocol in ("udp", "tcp")
    ]
    allowed = [f"-d {network}" for network in rules.allow]
    closed = [f"-d {network} -j {REFUSE}" for network in CLOSED_NETWORKS]
    to_machine = (
        f"{REPLIES} -j ACCEPT",  # to what the gateway asks of runs
        f"! -s {rules.subnet} -j DROP",
        f"-d {rules.host}/32 -p tcp -m tcp --dport {rules.port} -j ACCEPT",
        # A resolver, or what is allowed, may be this machine itself.
        *(f"{match} -j ACCEPT" for match in (*dns, *allowed)),
        f"-j {REFUSE}",
    )
    to_gateway = ("-i lo -j RETURN", f"-i {bridge} -j RETURN", "-j DROP")
    elsewhere = (
        f"! -s {rules.subnet} -j DROP",
        f"-o {bridge} -j {REFUSE}",  # a neighbour, whatever is allowed
        *(f"{match} -j RETURN" for match in (*dns, *allowed)),
        *closed,
    )
    to_runs = (f"{REPLIES} -j RETURN", "-j DROP")
    names = {part: rules.chain(part) for part in ("IN", "GW", "OUT", "TO")}
    return Table(
        name=FILTER,
        chains={names["IN"]: to_machine, names["GW"]: to_gateway, names["OUT"]: elsewhere, names["TO"]: to_runs},
        hooks=(
            Hook(chain=INPUT, match=f"-i {bridge}", target=names["IN"]),
            Hook(chain=INPUT, match=f"-d {rules.gateway}/32", target=names["GW"]),
            Hook(chain=forward, match=f"-i {bridge}", target=names["OUT"]),
            Hook(chain=forward, match=f"-o {bridge}", target=names["TO"]),
        ),
    )


def backstop_v4(rules: NetworkRules) -> Table:
    """What ``table_v4`` does with forwarded packets, in the table ``security``; that knows no answer but silence."""
    first = table_v4(rules)
    parts = (rules.chain("OUT"), rules.chain("TO"))
    return Table(
        name=SECURITY,
        chains={name: tuple(rule.replace(REFUSE, "DROP") for rule in first.chains[name]) for name in parts},
        hooks=tuple(replace(hook, chain=FORWARD) for hook in first.hooks if hook.target in parts),
    )


def table_v6(rules: NetworkRules, forward: str = FORWARD) -> Table:
    """The runs' network has no IPv6; should something on it speak it nevertheless, nobody listens."""
    bridge, name = rules.installation.bridge, rules.chain("IP6")
    hooks = ((INPUT, f"-i {bridge}"), (forward, f"-i {bridge}"), (forward, f"-o {bridge}"))
    return Table(
        name=FILTER,
        chains={name: ("-j DROP",)},
        hooks=tuple(Hook(chain=chain, match=match, target=name) for chain, match in hooks),
    )


def forward_chain(listing: str) -> str:
    """Where forwarded packets are caught: what the engine keeps for others, or FORWARD where it has no such chain."""
    return DOCKER_USER if f"-N {DOCKER_USER}" in listing.splitlines() else FORWARD


def problems(table: Table, listing: str) -> list[str]:
    """What of *table* is not in force by *listing* (the output of ``iptables -S``), in words; nothing if all is."""
    found = []
    in_force = _rules_by_chain(listing)
    for name, rules in table.chains.items():
        if name not in in_force:
            found.append(f"{table.name} has no chain {name}")
        elif in_force[name] != list(rules):
            found.append(f"{table.name} has other rules in {name}")
    found += [
        f"{hook.chain} of {table.name} does not lead to {hook.target} before all else"
        for hook in table.hooks
        if not _is_placed(hook, in_force)
    ]
    return found


def has_any(installation: Installation, listing: str) -> bool:
    """Whether *listing* has any chain of *installation*'s."""
    return any(name.startswith(chain_name(installation)) for name in _rules_by_chain(listing))


def installation_text(table: Table, listing: str) -> str:
    """
    Input of ``iptables-restore --noflush`` that puts *table* in force, all of it in one step.

    *listing* is what is in force now: hooks that another program's rules have got before are moved to the front.
    """
    in_force = _rules_by_chain(listing)
    lines = [f":{name} - [0:0]" for name in table.chains]  # emptied, if it is there
    lines += [f"-A {name} {rule}" for name, rules in table.chains.items() for rule in rules]
    for hook in table.hooks:
        if _is_placed(hook, in_force):
            continue
        lines += [f"-D {hook.chain} {rule}" for rule in in_force.get(hook.chain, ()) if rule == hook.rule]
        lines.append(f"-I {hook.chain} 1 {hook.rule}")
    return _as_input(table.name, lines)


def removal_text(installation: Installation, table_name: str, listing: str) -> str:
    """Input of ``iptables-restore --noflush`` that leaves nothing of *installation*'s; empty if nothing is there."""
    prefix = chain_name(installation)
    in_force = _rules_by_chain(listing)
    ours = [name for name in in_force if name.startswith(prefix)]
    lines = [
        f"-D {chain} {rule}"
        for chain, rules in in_force.items()
        if chain not in ours
        for rule in rules
        if rule.partition("-j ")[2].startswith(prefix)
    ]
    lines += [f"-F {name}" for name in ours] + [f"-X {name}" for name in ours]
    return _as_input(table_name, lines) if lines else ""


def script(tables: Iterable[tuple[str, Table]]) -> str:
    """The same as a shell script for root, to be read or to be kept; *tables* by command (``iptables``…)."""
    lines = []
    for command, table in tables:
        lines.append(f"{command}-restore -w --noflush <<'END'")
        chains = replace(table, hooks=())
        lines += [*installation_text(chains, "").splitlines(), "END"]
        words = f"{command} -w -t {table.name}"
        lines += [
            f"{words} -C {hook.chain} {hook.rule} 2>/dev/null || {words} -I {hook.chain} 1 {hook.rule}"
            for hook in table.hooks
        ]
    return "".join(f"{line}\n" for line in lines)


def in_words(rules: NetworkRules) -> list[str]:
    """What the rules let runs do, a line each."""
    lines = [
        f"Runs ({rules.subnet}) may reach:",
        f"  Greenroom at {rules.host}, port {rules.port}",
        f"  DNS at {', '.join(rules.resolvers)}, port 53" if rules.resolvers else "  DNS by the engine's own resolver",
        "  the internet",
    ]
    lines += [f"  {network}, since docker_allow says so" for network in rules.allow]
    return [
        *lines,
        "and nothing else: no neighbour, nothing more of this machine, no private or link-local address.",
        "From outside of this machine nobody reaches them.",
    ]


def allowed_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """
    The networks of the setting docker_allow as iptables writes them, each once. Raises ValueError.

    Nothing larger than 10.0.0.0/8: what opens everything is no exception but the end of the rules.
    """
    found = set()
    for text in texts:
        try:
            network = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            raise ValueError(f"an IPv4 address or network such as 10.20.0.0/24 is expected, not {text!r}") from None
        if network.prefixlen < _LARGEST_ALLOWED:
            raise ValueError(f"{text!r} is too large a network: /{_LARGEST_ALLOWED} is the largest that may be allowed")
        found.add(network)
    return tuple(str(network) for network in sorted(found))


def resolvers_in(resolv_conf: str) -> tuple[str, ...]:
    """
    The name servers that the engine's resolver asks from within a container's own network namespace.

    It asks those on the machine's loopback, and those with IPv6 addresses, from the machine instead (engines before
    26 don't ask the latter at all), which no rule of ours concerns.
    """
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ipaddress.IPv4Address(words[1])
        except ValueError:
            continue
        if not address.is_loopback:
            found.append(str(address))
    return tuple(dict.fromkeys(found))


def is_local_stub(resolv_conf: str) -> bool:
    """Whether systemd-resolved stands in for the name servers; the engine then reads its list of the real ones."""
    servers = [line.split()[1:2] for line in resolv_conf.splitlines() if line.split()[:1] == ["nameserver"]]
    return servers == [["127.0.0.53"]]


# -- what root has installed, for those who may not ask iptables -------------------------------------------------------


def to_json(rules: NetworkRules, boot_id: str) -> str:
    """The note of what was installed, and in which boot of the machine: the rules don't outlive it."""
    return json.dumps({"version": VERSION, "boot_id": boot_id} | asdict(rules)) + "\n"


def difference(wanted: NetworkRules, note: str | None, boot_id: str, *, heeds_resolvers: bool = True) -> str | None:
    """
    Why the rules in *note* (the text of ``to_json``; none: there is none) are not the wanted ones, or None.

    With ``heeds_resolvers`` off, rules for other name servers are as good: they isolate no less.
    """
    if note is None:
        return "the network rules are not installed"
    try:
        told = json.loads(note)
        installed = _from_json(told)
    except (ValueError, TypeError, KeyError, RecursionError):
        return "the note of the installed network rules can't be read"
    if told.get("boot_id") != boot_id:
        return "the network rules are gone since the machine was started anew"
    if told.get("version") != VERSION:
        return "the network rules are those of another version of Greenroom"
    for field in fields(NetworkRules):
        there, should = getattr(installed, field.name), getattr(wanted, field.name)
        if there != should and (heeds_resolvers or field.name != "resolvers"):
            return f"the network rules are for {_words(field.name, there)}, not for {_words(field.name, should)}"
    return None


def _from_json(told: Any) -> NetworkRules:
    return NetworkRules(
        installation=Installation(told["installation"]["id"]),
        subnet=told["subnet"],
        gateway=told["gateway"],
        host=told["host"],
        port=told["port"],
        resolvers=tuple(told["resolvers"]),
        allow=tuple(told["allow"]),
    )


_NAMES = {"resolvers": "the name servers", "allow": "docker_allow =", "host": "Greenroom at"}


def _words(name: str, value: Any) -> str:
    shown = (
        value.id
        if isinstance(value, Installation)
        else ", ".join(map(str, value))
        if isinstance(value, tuple)
        else value
    )
    return f"{_NAMES.get(name, f'the {name}')} {shown or '(none)'}"


def _rules_by_chain(listing: str) -> dict[str, list[str]]:
    chains: dict[str, list[str]] = {}
    for line in listing.splitlines():
        kind, _, rest = line.strip().partition(" ")
        name, _, rule = rest.partition(" ")
        if kind in ("-N", "-P"):
            chains.setdefault(name, [])
        elif kind == "-A":
            chains.setdefault(name, []).append(rule)
    return chains


def _is_placed(hook: Hook, in_force: dict[str, list[str]]) -> bool:
    """Whether nothing stands before it that could let pass what it must see: only hooks of Greenroom's own do."""
    for rule in in_force.get(hook.chain, ()):
        if rule == hook.rule:
            return True
        if not rule.partition("-j ")[2].startswith("GR-"):
            return False
    return False


def _as_input(table_name: str, lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in (f"*{table_name}", *lines, "COMMIT"))
