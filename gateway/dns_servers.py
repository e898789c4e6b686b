"""No I/O: the address of a DNS server as the setting ``dns_servers`` has it."""

from __future__ import annotations

import re
from ipaddress import ip_address

_PORT = r"[0-9]{1,5}"
_ADDRESS = re.compile(rf"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::(?P<v6_port>{_PORT}))?|(?P<v4>[0-9.]+):(?P<v4_port>{_PORT})")
_USUAL_PORT = 53


def dns_server(text: str) -> tuple[str, int]:
    """Address and port of ``9.9.9.9``, ``9.9.9.9:53``, ``2620:fe::fe`` or ``[2620:fe::fe]:53``. Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    address = (match["v6"] or match["v4"]) if match else text
    port = int((match["v6_port"] or match["v4_port"] or _USUAL_PORT) if match else _USUAL_PORT)
    try:
        address = str(ip_address(address))
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise ValueError(f"an address such as 9.9.9.9, 127.0.0.1:5353 or [::1]:5353 is expected, not {text!r}")
    return address, port
