"""The network rules beside a real Docker engine that ends, is killed and makes networks."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
from own_engine import OwnEngine

from gateway import iptables
from gateway.installation import Installation
from gateway.installed_rules import table_for
from gateway.network_rules import NetworkRules, installation_text, problems

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or any(shutil.which(program) is None for program in ("dockerd", "iptables", "ip")),
        reason="takes root, dockerd, iptables and ip",
    ),
]

RULES = NetworkRules(
    installation=Installation("0a1b2c3d"), subnet="10.77.0.0/24", gateway="10.77.0.1", host="10.77.0.1", port=8010
)


def _text(place: iptables.Place, listing: str) -> str:
    return installation_text(table_for(RULES, place, listing), listing)


def _problems(engine: OwnEngine) -> list[str]:
    with engine.inside():
        listings = {place: iptables.listing(place) for place in iptables.places()}
        assert iptables.bridges_are_filtered()
    return [
        problem
        for place, listing in listings.items()
        for problem in problems(table_for(RULES, place, listing), listing)
    ]


def test_rules_outlive_an_engine(docker_host: str) -> None:
    """Stopped, killed, started, and with networks that come and go: the rules stay complete and before all else."""
    # Not in a folder of pytest's: the paths of sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="gr-") as folder, OwnEngine(Path(folder) / "e") as engine:
        options = ("-o", f"com.docker.network.bridge.name={RULES.installation.bridge}")
        isolated = ("-o", "com.docker.network.bridge.enable_icc=false", "--subnet", RULES.subnet)
        engine.docker("network", "create", *options, *isolated, RULES.installation.network)
        with engine.inside():
            for place in iptables.places():
                iptables.change(place, partial(_text, place))
        assert _problems(engine) == []
        engine.stop()
        assert _problems(engine) == []
        engine.start()
        assert _problems(engine) == []
        engine.kill()
        engine.start()
        assert _problems(engine) == []
        for number in range(3):
            engine.docker("network", "create", f"other-{number}")
            assert _problems(engine) == []
            engine.docker("network", "rm", f"other-{number}")
        assert _problems(engine) == []
