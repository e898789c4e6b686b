"""Series about the signals of one process: whether they can be reached, and what was asked of their server."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.state.ports import Signals


class SignalsSeries(Collector):
    """``greenroom_signals_up`` and ``greenroom_redis_commands``."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def collect(self) -> Iterator[Metric]:
        """The series as they stand."""
        is_up = float(self._signals.trouble is None)
        yield GaugeMetricFamily("greenroom_signals_up", "1 while the signals can be reached.", value=is_up)
        commands = CounterMetricFamily(
            "greenroom_redis_commands", "Commands sent to Redis, by script or command.", labels=("command",)
        )
        for command, issued in self._signals.commands_issued().items():
            commands.add_metric((command,), issued)
        yield commands
