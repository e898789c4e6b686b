"""The programs ``iptables`` and ``ip6tables``: what is in force, and putting other rules in force. Takes root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.network_rules import FILTER, SECURITY
from gateway.refusals import Refused

V4 = "iptables"
V6 = "ip6tables"

_TIMEOUT_SECS = 30
_TRIES = 5
_IPV6_IN_USE = Path("/proc/net/if_inet6")  # absent where the kernel has none, or it is switched off
# Without this the kernel hands what goes from one container to another past iptables.
_BRIDGE_SWITCH = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
# Found also where the search path of a service leaves them out.
_PLACES = f"{os.defpath}:/usr/sbin:/sbin"


def require_root(what: str) -> None:
    """Raises Refused where this process may not change the network's rules."""
    if os.geteuid() != 0:
        raise Refused(f"{what} takes root: run it with sudo, naming the same data folder by --data DIR.")


@dataclass(frozen=True, slots=True)
class Place:
    """One *table* of the protocol that *command* is for."""

    command: str
    table: str


FILTER_V4, SECURITY_V4, FILTER_V6 = Place(V4, FILTER), Place(V4, SECURITY), Place(V6, FILTER)


def places() -> tuple[Place, ...]:
    """Where rules belong on this machine: not where the kernel has nothing. Raises Refused without iptables."""
    _program(V4)
    found = [FILTER_V4]
    with contextlib.suppress(Refused):  # an old kernel may lack this table, and all it does is close a short gap
        listing(SECURITY_V4)
        found.append(SECURITY_V4)
    if _IPV6_IN_USE.exists() and _found(V6) is not None:
        found.append(FILTER_V6)
    return tuple(found)


def listing(place: Place) -> str:
    """All rules of one table, as ``iptables -S`` prints them. Raises Refused."""
    return _output([_program(place.command), "-w", "-t", place.table, "-S"])


def change(place: Place, text_after: Callable[[str], str]) -> None:
    """
    Feed ``iptables-restore --noflush`` what *text_after* makes of the present listing; nothing where that is empty.

    It is applied as a whole or not at all; should another program have changed the rules in between, it is made anew.
    Raises Refused.
    """
    for left in reversed(range(_TRIES)):
        text = text_after(listing(place))
        if not text:
            return
        try:
            _output([_program(f"{place.command}-restore"), "-w", "--noflush"], text)
        except Refused:
            if not left:
                raise
        else:
            return


def bridges_are_filtered() -> bool:
    """Whether packets between two containers of one bridge pass iptables at all."""
    try:
        return _BRIDGE_SWITCH.read_text().strip() == "1"
    except OSError:
        return False


def filter_bridges() -> None:
    """Make it so. Raises Refused."""
    if bridges_are_filtered():
        return
    try:
        _BRIDGE_SWITCH.write_text("1\n")
    except OSError as error:
        raise Refused(
            f"{_BRIDGE_SWITCH} can't be set ({error.strerror}), so containers could reach each other: load the kernel "
            "module br_netfilter (modprobe br_netfilter), and try again."
        ) from error


def _found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=_PLACES)


def _program(program: str) -> str:
    path = _found(program)
    if path is None:
        raise Refused(f"{program} is not installed: install the package iptables, and try again.")
    return path


def _output(words: list[str], text: str | None = None) -> str:
    name = Path(words[0]).name
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=_TIMEOUT_SECS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{name} did not do its work: {error}.") from error
    if done.returncode != 0:
        told = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise Refused(f"{name} failed: {told}")
    return done.stdout
