"""
No I/O: the ``Host`` header to whom it means, custom domains included, from memory.

A header of a host that exists costs one dict access from the second time on.
"""

from __future__ import annotations

from gateway.proxy.hosts import Own, Standby, Target, Unknown, host_name, parse_host
from gateway.state.directory import Directory

# More than the standby hosts of a large Greenroom; some 200 bytes each.
_MAX_REMEMBERED = 16_384


class HostMap:
    """What each ``Host`` header means below *domain* and, by the *directory*, elsewhere."""

    def __init__(self, domain: str, directory: Directory) -> None:
        self._domain = domain
        self._directory = directory
        self._seen: dict[bytes, Target] = {}
        directory.on_domains_changed = self._seen.clear

    def look(self, host: bytes) -> Target:
        """Whom *host*, the header's value as sent, means. Never raises."""
        target = self._seen.get(host)
        return target if target is not None else self._look_anew(host)

    def _look_anew(self, host: bytes) -> Target:
        target = parse_host(host, self._domain)
        if isinstance(target, Unknown):
            target = self._beyond(host)
        if self._is_inventable(target):
            return target
        if len(self._seen) >= _MAX_REMEMBERED:
            self._seen.clear()
        if isinstance(target, Standby):
            target = Standby(self._directory.own_label(target.label))
        self._seen[host] = target
        return target

    def _beyond(self, host: bytes) -> Target:
        name = host_name(host)
        if name is None:
            return Unknown()
        label = self._directory.label_of_domain(name)
        if label is not None:
            return Standby(label)
        return Own(claimed=name) if self._directory.is_claimed(name) else Unknown()

    def _is_inventable(self, target: Target) -> bool:
        """Whether any number of hosts mean the like: remembering them would let strangers push out the others."""
        if isinstance(target, Standby):
            return self._directory.target(target.label) is None
        return isinstance(target, Unknown) or (isinstance(target, Own) and target.claimed != "")
