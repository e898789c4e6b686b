"""Which port of this machine the next run gets: reserved in memory, and asked of the kernel."""

from __future__ import annotations

import secrets
import socket

from gateway.core.errors import LaunchError


class Ports:
    """
    Hands out the ports of one range in turn, so that none is used again at once.

    A port that somebody else listens on is passed over. Between the check and the Actor's own ``bind`` another program
    may still take it: the range should lie outside the kernel's ephemeral ports, so that no outgoing connection does.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        # Not always the same start: two Greenrooms, or one that was restarted, should not go for the same ports.
        self._next = first + secrets.randbelow(last - first + 1)
        self._by_run: dict[str, int] = {}

    def of(self, run_id: str) -> int | None:
        """The port that this run holds."""
        return self._by_run.get(run_id)

    def take(self, run_id: str) -> int:
        """A free port for a run, in place of one that it had. Raises LaunchError when the range is used up."""
        self.give_back(run_id)
        taken = set(self._by_run.values())
        for _ in range(self._last - self._first + 1):
            port = self._next
            self._next = port + 1 if port < self._last else self._first
            if port not in taken and why_not_free(port) is None:
                self._by_run[run_id] = port
                return port
        raise LaunchError(
            f"All ports from {self._first} to {self._last} are taken: end some runs, or widen the setting port_range."
        )

    def take_this(self, run_id: str, port: int) -> None:
        """Exactly this port, for an Actor that insists on it. Raises LaunchError, with what to do, when it is taken."""
        self.give_back(run_id)
        holder = next((holder for holder, held in self._by_run.items() if held == port), None)
        problem = f"run {holder} holds it" if holder is not None else why_not_free(port)
        if problem is not None:
            raise LaunchError(
                f"The Actor insists on port {port}, which is not free ({problem}). Wait until it is, end what listens "
                "there, or let the Actor listen on the port in ACTOR_WEB_SERVER_PORT, so that several can run at once."
            )
        self._by_run[run_id] = port

    def keep(self, run_id: str, port: int) -> None:
        """Note the port of a run that has it already."""
        self._by_run[run_id] = port

    def give_back(self, run_id: str) -> None:
        """The run needs its port no more."""
        self._by_run.pop(run_id, None)


def why_not_free(port: int) -> str | None:
    """
    Why a server could not listen on *port* at all addresses, or None if it could.

    Bound with SO_REUSEADDR, as servers do: connections that linger after an earlier server are no obstacle.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return error.strerror or str(error)
    return None
