"""No I/O: every address that Greenroom prints, stores or hands to an Actor, made in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """
    Addresses of one Greenroom.

    ``scheme``, ``domain`` and ``port`` are as the public sees them; runs reach the API at
    ``local_host`` and ``local_port``, since they can't resolve ``*.localhost`` everywhere.
    """

    scheme: str
    domain: str
    port: int
    local_port: int
    local_host: str = "127.0.0.1"

    @property
    def _port_part(self) -> str:
        usual = {"http": 80, "https": 443}[self.scheme]
        return "" if self.port == usual else f":{self.port}"

    def of_host(self, host: str) -> str:
        """The origin of *host*, without a slash at the end."""
        return f"{self.scheme}://{host}{self._port_part}"

    def standby(self, label: str) -> str:
        """``http://bob--hello.localhost:8010`` for the label ``bob--hello`` (``ids.shown_standby_label``)."""
        return self.of_host(f"{label.lower()}.{self.domain}")

    def live_view(self, label: str) -> str:
        """The address of one run's web server."""
        return self.of_host(f"{label}.runs.{self.domain}")

    @property
    def public(self) -> str:
        """The base that clients use, without ``/v2``."""
        return self.of_host(self.domain)

    @property
    def local(self) -> str:
        """The base that runs use, without ``/v2``."""
        return f"http://{self.local_host}:{self.local_port}"

    def events(self, run_id: str, secret: str) -> str:
        """The system-events socket of one run; the secret in it is all that it asks for."""
        return f"ws://{self.local_host}:{self.local_port}/events/{run_id}/{secret}"
