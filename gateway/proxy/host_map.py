"""
No I/O: the ``Host`` header to whom it means, custom domains included, from memory.

A header that was seen before costs one dict access.
"""

from __future__ import annotations

from gateway.proxy.hosts import Target, Unknown, parse_host

# More than the standby hosts of a large Greenroom; some 300 bytes each.
_MAX_REMEMBERED = 16_384


class HostMap:
    """What each ``Host`` header means below *domain*."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._seen: dict[bytes, Target] = {}

    def look(self, host: bytes) -> Target:
        """Whom *host*, the header's value as sent, means. Never raises."""
        target = self._seen.get(host)
        if target is not None:
            return target
        target = parse_host(host, self._domain)
        if isinstance(target, Unknown):
            return target  # strangers' inventions are not remembered
        if len(self._seen) >= _MAX_REMEMBERED:
            self._seen.clear()
        self._seen[host] = target
        return target
