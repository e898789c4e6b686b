"""``greenroom network-rules``: what runs in containers may reach on the network, put in force by root once."""

from __future__ import annotations

import fcntl
import ipaddress
import sys
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

from gateway import iptables
from gateway.commands.run_network import with_run_network
from gateway.data_dir import lock_path, read_holder
from gateway.installation import installation_of
from gateway.installed_rules import command_for, remove_note, require_bridge, rules_problem, table_for, wanted_rules
from gateway.network_rules import NetworkRules, in_words, installation_text, problems, removal_text, script
from gateway.node_rules import NodeRules, gateway_networks, node_script
from gateway.refusals import FAILED, USAGE, Refused
from gateway.settings import Settings

_OUTLIVE = (
    "They outlive restarts of Greenroom and of the Docker engine, but no reboot and no flush by another firewall: "
    "run this command again then, or have a service do it before Greenroom starts."
)


def install(settings: Settings) -> int:
    """Put the rules in force, whatever was in force before; what they allow is printed. Raises Refused."""
    _require_data(settings)
    iptables.require_root("installing network rules")
    places = iptables.places()
    wanted = _wanted(settings)
    require_bridge(wanted.installation)
    iptables.filter_bridges()
    remove_note(wanted.installation)  # not true while it is being done
    for place in places:
        iptables.change(place, partial(_text, wanted, place))
    problem = rules_problem(wanted)
    if problem is not None:
        raise Refused(f"{problem.rstrip('.')}, right after they were installed: another program changes them.")
    print("\n".join([*in_words(wanted), "", _OUTLIVE]))
    return 0


def check(settings: Settings) -> int:
    """Whether they are in force as this Greenroom needs them: 0, or 1 and what is missing. Raises Refused."""
    _require_data(settings)
    wanted = _wanted(settings)
    problem = rules_problem(wanted)
    if problem is None:
        print(f"The network rules of Greenroom {wanted.installation.id} are in force.")
        return 0
    print(f"greenroom: {problem.rstrip('.')}. As root: {command_for(settings)}", file=sys.stderr)
    return FAILED


def remove(settings: Settings) -> int:
    """Leave nothing of this Greenroom's rules. Needs neither the engine nor the network. Raises Refused."""
    _require_data(settings)
    iptables.require_root("removing network rules")
    installation = installation_of(settings.data)
    for place in iptables.places():
        iptables.change(place, partial(removal_text, installation, place.table))
    remove_note(installation)
    print(f"The network rules of Greenroom {installation.id} are removed: runs reach all that the engine lets them.")
    return 0


def print_script(settings: Settings) -> int:
    """The rules as a shell script, for who would rather read or keep than run them. Raises Refused."""
    _require_data(settings)
    wanted = _wanted(settings)
    # Which chain the engine keeps can't be asked without root: the usual one, and FORWARD where ip6tables has no such.
    usual = {iptables.FILTER_V4: "-N DOCKER-USER", iptables.SECURITY_V4: "", iptables.FILTER_V6: ""}
    tables = [(place.command, table_for(wanted, place, listing)) for place, listing in usual.items()]
    print(script(tables), end="")
    return 0


def print_node_script(settings: Settings) -> int:
    """The rules of a Swarm's nodes as a shell script, which each node's administrator runs as root. Raises Refused."""
    _require_data(settings)
    port = _port(settings)
    settings = with_run_network(settings.model_copy(update={"launcher": "swarm"}))
    try:
        gateways = settings.swarm_gateways or gateway_networks((settings.run_host or "",))
        host = str(ipaddress.IPv4Address(settings.run_host or ""))
    except ValueError as error:
        raise Refused(
            f"run_host {settings.run_host!r} is no IPv4 address, so no rule can let runs reach it."
        ) from error
    rules = NodeRules(
        installation=installation_of(settings.data),
        gateways=gateways,
        host=host,
        port=port,
        allow=settings.docker_allow,
    )
    print(node_script(rules), end="")
    return 0


def run(settings: Settings, action: str) -> int:
    """One of ``install``, ``check``, ``remove``, ``print`` and ``nodes``; the exit code. Raises Refused."""
    actions = {
        "install": install,
        "check": check,
        "remove": remove,
        "print": print_script,
        "nodes": print_node_script,
    }
    return actions[action](settings)


def _text(wanted: NetworkRules, place: iptables.Place, listing: str) -> str:
    table = table_for(wanted, place, listing)
    return installation_text(table, listing) if problems(table, listing) else ""


def _require_data(settings: Settings) -> None:
    """Made by root, the folder would not be the server's own."""
    if not settings.data.is_dir():
        raise Refused(
            f"there is no data folder {settings.data}: name that of the server, --data DIR, or start that once.",
            exit_code=USAGE,
        )


def _wanted(settings: Settings) -> NetworkRules:
    port = _port(settings)
    settings = with_run_network(settings.model_copy(update={"launcher": "docker"}))
    return wanted_rules(settings, port)


def _port(settings: Settings) -> int:
    """The one on which a server listens now, else the one that it is going to listen on."""
    if _is_locked(settings):
        with suppress(ValueError):
            port = urlsplit(read_holder(settings.data).url).port
            if port:
                return port
    if settings.port == 0:
        raise Refused("which port Greenroom will listen on is not known: give it by --port N, or start it first.")
    return settings.port


def _is_locked(settings: Settings) -> bool:
    try:
        with lock_path(settings.data).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
