"""
No I/O: the network rules of a Docker Swarm's nodes, as a shell script that each node's administrator runs as root.

A node has no Greenroom, so the script is complete by itself, and what only the node knows (its name servers, its range
of ephemeral ports) it asks there. Its chains are named like those of one engine (``gateway.network_rules``)::

    NIN   runs → the node itself          from INPUT, by the bridge that packets come from
    NOUT  runs → anything else            from DOCKER-USER
    NTO   anybody → runs                  from DOCKER-USER; the gateways alone may, by the ports that Swarm opens
    NP6   anybody → ports by IPv6         from INPUT: there it is a program of the engine's that listens for the runs

NOUT and NTO stand a second time in the table ``security``, since an engine that makes a network takes the way to
DOCKER-USER out for some milliseconds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gateway.installation import Installation
from gateway.network_rules import (
    CLOSED_NETWORKS,
    DOCKER_USER,
    FILTER,
    FORWARD,
    INPUT,
    REFUSE,
    REPLIES,
    SECURITY,
    Hook,
    Table,
    chain_name,
)

_RESOLVER = "@RESOLVER@"
_PORTS = "@PORTS@"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRules:
    """
    What the rules of one Greenroom's nodes are made from.

    ``gateways``: from where runs are called, as addresses or networks. ``host`` and ``port``: where runs reach
    Greenroom. ``allow``: networks that runs may reach although they are not the internet.
    """

    installation: Installation
    gateways: tuple[str, ...]
    host: str
    port: int
    allow: tuple[str, ...] = ()


def gateway_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """
    The setting swarm_gateways as iptables writes it, each once. Raises ValueError.

    Nothing larger than 10.0.0.0/8: ports that everybody may call are what the rules are against.
    """
    found = set()
    for text in texts:
        try:
            network = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            raise ValueError(f"an IPv4 address or network such as 10.20.0.5 is expected, not {text!r}") from None
        if network.prefixlen < 8:
            raise ValueError(f"{text!r} is too large a network: /8 is the largest from which runs may be called")
        found.add(network)
    return tuple(str(network) for network in sorted(found))


def tables(rules: NodeRules) -> tuple[tuple[str, Table], ...]:
    """What belongs on a node, by command; name servers and ports are still placeholders."""
    bridge = rules.installation.node_bridge
    into, out, towards, ports6, bridge6 = (
        chain_name(rules.installation, part) for part in ("NIN", "NOUT", "NTO", "NP6", "NB6")
    )
    dns = [f"-d {_RESOLVER}/32 -p {protocol} -m {protocol} --dport 53" for protocol in ("udp", "tcp")]
    open_to_runs = [
        f"-d {rules.host}/32 -p tcp -m tcp --dport {rules.port}",
        *dns,
        *(f"-d {network}" for network in rules.allow),
    ]
    closed = [f"-d {network} -j {REFUSE}" for network in CLOSED_NETWORKS]
    elsewhere = (
        f"{REPLIES} -j RETURN",  # to what a gateway asks of runs
        f"-o {bridge} -j {REFUSE}",  # a neighbour, whatever is allowed
        *(f"{match} -j RETURN" for match in open_to_runs),
        *closed,
    )
    to_runs = (f"{REPLIES} -j RETURN", *(f"-s {gateway} -j RETURN" for gateway in rules.gateways), "-j DROP")
    to_node = (f"{REPLIES} -j ACCEPT", *(f"{match} -j ACCEPT" for match in open_to_runs), f"-j {REFUSE}")
    forwarded = (
        Hook(chain=DOCKER_USER, match=f"-i {bridge}", target=out),
        Hook(chain=DOCKER_USER, match=f"-o {bridge}", target=towards),
    )
    first = Table(
        name=FILTER,
        chains={into: to_node, out: elsewhere, towards: to_runs},
        hooks=(Hook(chain=INPUT, match=f"-i {bridge}", target=into), *forwarded),
    )
    backstop = Table(
        name=SECURITY,
        chains={name: tuple(rule.replace(REFUSE, "DROP") for rule in first.chains[name]) for name in (out, towards)},
        hooks=tuple(replace(hook, chain=FORWARD) for hook in forwarded),
    )
    last = Table(
        name=FILTER,
        chains={
            bridge6: ("-j DROP",),
            ports6: (f"-p tcp -m tcp --dport {_PORTS} -m conntrack --ctstate NEW -j DROP",),
        },
        hooks=(
            Hook(chain=INPUT, match=f"-i {bridge}", target=bridge6),
            Hook(chain=FORWARD, match=f"-i {bridge}", target=bridge6),
            Hook(chain=FORWARD, match=f"-o {bridge}", target=bridge6),
            Hook(chain=INPUT, match="! -i lo", target=ports6),
        ),
    )
    return (("iptables", first), ("iptables", backstop), ("ip6tables", last))


def node_script(rules: NodeRules) -> str:
    """The script: ``sh FILE [install | check | remove]``. Check ends with 0 where all rules are in force, else 1."""
    blocks = []
    for number, (command, table) in enumerate(tables(rules)):
        chains = "".join(f"{name}\n" for name in table.chains)
        lines = "".join(f"{name} {rule}\n" for name, chain in table.chains.items() for rule in chain)
        hooks = "".join(f"{hook.chain} {hook.rule}\n" for hook in table.hooks)
        blocks.append(
            f"chains_{number}() {{ cat <<'END'\n{chains}END\n}}\n"
            f"rules_{number}() {{ expand <<'END'\n{lines}END\n}}\n"
            f"hooks_{number}() {{ sed \"s/^{DOCKER_USER} /$forward /\" <<'END'\n{hooks}END\n}}\n"
            f"{'one' if number == 0 else 'perhaps'} {number} {command} {table.name}\n"
        )
    return _HEAD.format(
        id=rules.installation.id, gateways=", ".join(rules.gateways), host=rules.host, port=rules.port
    ) + "".join((*blocks, _TAIL))


_HEAD = """\
#!/bin/sh
# The network rules of Greenroom {id} for one node of its Docker Swarm. As root, and again after each reboot:
#     sh FILE            puts them in force; may be repeated
#     sh FILE check      are they? ends with 0 or 1
#     sh FILE remove     leaves nothing of them
# Runs may reach Greenroom at {host}, port {port}, name servers and the internet; no neighbour, nothing of this node, no
# private or link-local address. They are called from {gateways} only.
set -u
action=${{1:-install}}
case $action in install | check | remove) ;; *) echo "usage: sh $0 [install | check | remove]" >&2; exit 2 ;; esac
[ "$(id -u)" = 0 ] || {{ echo "network rules take root: run this with sudo" >&2; exit 1; }}
command -v iptables >/dev/null || {{ echo "iptables is not installed: install the package iptables" >&2; exit 1; }}

servers_in() {{ sed -n 's/^nameserver[[:space:]]\\{{1,\\}}\\([0-9][0-9.]*\\)[[:space:]]*$/\\1/p' "$1" 2>/dev/null; }}
servers=$(servers_in /etc/resolv.conf)
[ "$servers" = 127.0.0.53 ] && servers=$(servers_in /run/systemd/resolve/resolv.conf)
servers=$(echo "$servers" | grep -v '^127\\.' | sort -u | tr '\\n' ' ')
ports=$(tr '\\t ' '::' </proc/sys/net/ipv4/ip_local_port_range)
forward=DOCKER-USER
iptables -w -S DOCKER-USER >/dev/null 2>&1 || forward=FORWARD
problems=0

# Lines that name the name servers once for each of them.
expand() {{
    awk -v list="$servers" -v ports="$ports" '{{
        gsub("@PORTS@", ports)
        if (!/@RESOLVER@/) {{ print; next }}
        n = split(list, one, " ")
        for (i = 1; i <= n; i++) {{ line = $0; gsub("@RESOLVER@", one[i], line); print line }}
    }}'
}}

fail() {{ echo "$1" >&2; problems=1; }}

install() {{
    {{
        echo "*$3"
        "chains_$1" | sed 's/.*/:& - [0:0]/'
        "rules_$1" | sed 's/^/-A /'
        echo COMMIT
    }} | "$2-restore" -w --noflush || fail "the rules of $3 ($2) could not be put in force"
    while read -r chain rule; do
        # shellcheck disable=SC2086
        "$2" -w -t "$3" -C "$chain" $rule 2>/dev/null || "$2" -w -t "$3" -I "$chain" 1 $rule || fail "$2: no $rule"
    done <<END
$("hooks_$1")
END
}}

check() {{
    while read -r chain rule; do
        # shellcheck disable=SC2086
        "$2" -w -t "$3" -C "$chain" $rule 2>/dev/null || fail "not in force: $2 -t $3 -A $chain $rule"
    done <<END
$("rules_$1")
$("hooks_$1")
END
}}

remove() {{
    while read -r chain rule; do
        # shellcheck disable=SC2086
        while "$2" -w -t "$3" -D "$chain" $rule 2>/dev/null; do :; done
    done <<END
$("hooks_$1")
END
    for chain in $("chains_$1"); do
        "$2" -w -t "$3" -F "$chain" 2>/dev/null && "$2" -w -t "$3" -X "$chain" 2>/dev/null
    done
    if "$2" -w -t "$3" -S 2>/dev/null | grep -q "GR-{id}-N"; then fail "$2 -t $3 still has rules of Greenroom {id}"; fi
}}

one() {{ "$action" "$@"; }}
# What the kernel has not, nobody gets through.
perhaps() {{ "$2" -w -t "$3" -S >/dev/null 2>&1 && one "$@"; }}

bridges=/proc/sys/net/bridge/bridge-nf-call-iptables
if [ "$action" = install ]; then
    [ -e $bridges ] || modprobe br_netfilter 2>/dev/null
    [ "$(cat $bridges 2>/dev/null)" = 1 ] || echo 1 >$bridges || fail "$bridges can't be set: modprobe br_netfilter"
elif [ "$action" = check ]; then
    [ "$(cat $bridges 2>/dev/null)" = 1 ] || fail "$bridges is not 1: containers of one bridge pass iptables by"
fi

"""

_TAIL = """
if [ $problems = 0 ]; then
    case $action in
        install) echo "The network rules are in force on $(hostname)." ;;
        check) echo "The network rules are in force on $(hostname)." ;;
        remove) echo "The network rules are removed from $(hostname)." ;;
    esac
fi
exit $problems
"""
