"""
Which network rules this Greenroom needs, and whether they are installed.

Only root may ask iptables. So the command that installs them leaves a note below ``/run/greenroom``, which vanishes at
a reboot as they do; root, whenever it looks, takes away a note that is no longer true.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import shlex
import sys
from pathlib import Path

from gateway import iptables
from gateway.installation import Installation, installation_of
from gateway.network_rules import (
    NetworkRules,
    Table,
    backstop_v4,
    difference,
    forward_chain,
    has_any,
    is_local_stub,
    problems,
    resolvers_in,
    table_v4,
    table_v6,
    to_json,
)
from gateway.refusals import Refused
from gateway.settings import Settings

_NOTES = Path("/run/greenroom")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_INTERFACES = Path("/sys/class/net")
_RESOLV_CONF = Path("/etc/resolv.conf")
_RESOLVED_CONF = Path("/run/systemd/resolve/resolv.conf")
_LONGEST_NOTE = 65_536

_ADMINISTRATORS_ONLY = (
    "only the administrator's Actors run; --trust-users lets those of other users run without the rules."
)


def wanted_rules(settings: Settings, port: int) -> NetworkRules:
    """
    What a Greenroom with *settings* needs that listens on *port*; the runs' network is there, its subnet in the
    settings. Raises Refused.
    """
    if settings.docker_subnet is None:
        raise Refused("the runs' network is not known yet: start Greenroom with --launcher docker.")
    gateway = _gateway(settings.docker_subnet)
    host = settings.run_host or gateway
    try:
        ipaddress.IPv4Address(host)
    except ValueError as error:
        raise Refused(f"run_host {host!r} is no IPv4 address, so no rule can let runs reach it.") from error
    return NetworkRules(
        installation=installation_of(settings.data),
        subnet=settings.docker_subnet,
        gateway=gateway,
        host=host,
        port=port,
        resolvers=_resolvers(),
        allow=settings.docker_allow,
    )


def rules_problem(wanted: NetworkRules) -> str | None:
    """
    Why *wanted* are not in force, or None. Root asks iptables, and corrects the note; others believe the note.

    Blocks for some 10 ms.
    """
    if os.geteuid() != 0:
        return noted_problem(wanted)
    try:
        require_bridge(wanted.installation)
        problem = _problem_of_tables(wanted)
    except Refused as refused:
        problem = str(refused)
    if problem is not None:
        remove_note(wanted.installation)
    else:
        write_note(wanted)
    return problem


def require_bridge(installation: Installation) -> None:
    """Raises Refused where rules of this machine would concern nobody."""
    if not (_INTERFACES / installation.bridge).exists():
        raise Refused(
            f"there is no interface {installation.bridge} here, though the engine has the network: the engine keeps it "
            "in a network namespace of its own (as a rootless one does), out of the reach of rules."
        )


def noted_problem(wanted: NetworkRules, *, heeds_resolvers: bool = True) -> str | None:
    """The same by the note alone: cheap enough for each start of a run."""
    return difference(wanted, _read_note(wanted.installation), _boot_id(), heeds_resolvers=heeds_resolvers)


def table_for(wanted: NetworkRules, place: iptables.Place, listing: str) -> Table:
    """What of *wanted* belongs in *place*, where *listing* is in force."""
    if place == iptables.SECURITY_V4:
        return backstop_v4(wanted)
    return (table_v6 if place == iptables.FILTER_V6 else table_v4)(wanted, forward_chain(listing))


def command_for(settings: Settings) -> str:
    """How an administrator installs the rules of a server with *settings*."""
    words = ["greenroom", "network-rules", "--data", str(settings.data)]
    if settings.docker_host:
        words += ["--set", f"docker_host={settings.docker_host}"]
    if settings.docker_allow:
        words += ["--set", f"docker_allow={','.join(settings.docker_allow)}"]
    if settings.run_host and settings.docker_subnet and settings.run_host != _gateway(settings.docker_subnet):
        words += ["--set", f"run_host={settings.run_host}"]
    return shlex.join(words)


async def warn_without_rules(settings: Settings, port: int) -> None:
    """For the person at the terminal: runs in containers reach more than they should, and how that is mended."""
    if settings.launcher != "docker":
        return

    def problem() -> str | None:
        try:
            return rules_problem(wanted_rules(settings, port))
        except Refused as refused:
            return str(refused)

    why = await asyncio.to_thread(problem)
    if why is None:
        return
    print(
        f"greenroom: {why.rstrip('.')}. Runs may reach other ports of this machine, and private networks. "
        f"As root: {command_for(settings)}"
        + ("" if settings.trust_users else f"\ngreenroom: until then {_ADMINISTRATORS_ONLY}"),
        file=sys.stderr,
        flush=True,
    )


def strangers_problem(settings: Settings, port: int) -> str | None:
    """Why Actors of users other than the administrator may not run in containers, or None; by the note alone."""
    if settings.trust_users:
        return None
    try:
        why = noted_problem(wanted_rules(settings, port), heeds_resolvers=False)
    except Refused as refused:
        why = str(refused)
    return why and f"{why.rstrip('.')}, and until then {_ADMINISTRATORS_ONLY} As root: {command_for(settings)}"


def write_note(rules: NetworkRules) -> None:
    """For those who may not ask iptables: what is installed. Raises Refused."""
    path = _note_path(rules.installation)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _NOTES.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:  # noqa: PTH123
            file.write(to_json(rules, _boot_id()))
        partial.chmod(0o644)  # whatever the umask
        partial.rename(path)
    except OSError as error:
        raise Refused(f"{path} can't be written ({error.strerror}), by which Greenroom knows of its rules.") from error


def remove_note(installation: Installation) -> None:
    """There are no rules any more, or others."""
    with contextlib.suppress(OSError):
        _note_path(installation).unlink(missing_ok=True)


def _problem_of_tables(wanted: NetworkRules) -> str | None:
    if not iptables.bridges_are_filtered():
        return "the kernel hands what goes from one container to another past iptables"
    listings = {place: iptables.listing(place) for place in iptables.places()}
    if not any(has_any(wanted.installation, listing) for listing in listings.values()):
        return "the network rules are not installed"
    found = [
        problem
        for place, listing in listings.items()
        for problem in problems(table_for(wanted, place, listing), listing)
    ]
    return f"the network rules are not complete: {'; '.join(found)}" if found else None


def _gateway(subnet: str) -> str:
    """The bridge's own address, as ``autoscaler.launchers.docker.network`` gives it."""
    return str(next(ipaddress.IPv4Network(subnet).hosts()))


def _note_path(installation: Installation) -> Path:
    return _NOTES / f"network-rules-{installation.id}.json"


def _read_note(installation: Installation) -> str | None:
    try:
        with _note_path(installation).open() as file:
            if os.fstat(file.fileno()).st_uid != 0:  # anybody might have written it
                return None
            return file.read(_LONGEST_NOTE)
    except (OSError, UnicodeDecodeError):
        return None


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _resolvers() -> tuple[str, ...]:
    """Read as the engine reads them."""
    text = _text(_RESOLV_CONF)
    return resolvers_in(_text(_RESOLVED_CONF) if is_local_stub(text) else text)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
