"""No I/O: which run has which address of the runs' network. An address is used again as late as possible."""

from __future__ import annotations

import ipaddress

from gateway.core.errors import LaunchError

_LEAST_DIVIDED = 64
_PART = 16


def automatic_range(subnet: str) -> str | None:
    """
    The last sixteenth of *subnet*, from which the engine gives addresses to containers of its own: the steps of builds.

    None for a subnet too small to be divided: there a run that starts in the middle of a build may find its address
    taken.
    """
    network = ipaddress.IPv4Network(subnet)
    if network.num_addresses < _LEAST_DIVIDED:
        return None
    return str(list(network.subnets(prefixlen_diff=4))[-1])


class Addresses:
    """
    The addresses of *subnet*, e.g. ``172.18.0.0/16``, less its first one (the machine's own), the last, and those that
    the engine gives by itself.

    Given out in turn: whatever still believes that an address is the run that had it (a connection, a cache) has the
    longest possible time to learn better.
    """

    def __init__(self, subnet: str) -> None:
        network = ipaddress.IPv4Network(subnet)
        self._first = int(network.network_address) + 2
        engines_own = network.num_addresses // _PART if automatic_range(subnet) is not None else 0
        self._count = network.num_addresses - 3 - engines_own
        self._next = 0
        self._of_run: dict[str, str] = {}
        self._taken: set[str] = set()

    def take(self, run_id: str) -> str:
        """An address for *run_id*, the same one if it has one already. Raises LaunchError when all are taken."""
        if (known := self._of_run.get(run_id)) is not None:
            return known
        for _ in range(self._count):
            address = str(ipaddress.IPv4Address(self._first + self._next))
            self._next = (self._next + 1) % self._count
            if address not in self._taken:
                self.keep(run_id, address)
                return address
        raise LaunchError(
            f"All {self._count} addresses of the runs' network are taken: abort runs, or give it a larger subnet "
            "(setting: docker_subnet)."
        )

    def keep(self, run_id: str, address: str) -> None:
        """*run_id* has *address*, whoever gave it: an earlier process of this Greenroom."""
        self.give_back(run_id)
        self._of_run[run_id] = address
        self._taken.add(address)

    def give_back(self, run_id: str) -> None:
        """The run has ended."""
        address = self._of_run.pop(run_id, None)
        if address is not None:
            self._taken.discard(address)
