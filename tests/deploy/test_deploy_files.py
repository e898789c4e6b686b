"""What lies in deploy/ for those who run Greenroom for good: read by the tools that it is written for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SWARM = {"GREENROOM_REGISTRY": "registry.example.com:5000", "DOCKER_GID": "999"}


def run(*words: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A tool's run; left out where the tool is not there. Some come as packages of the development environment."""
    tool = shutil.which(str(words[0]), path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if tool is None:
        pytest.skip(f"{words[0]} is not installed")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GREENROOM_", "DOCKER_"))}
    return subprocess.run(
        [tool, *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=clean | (environment or {}),
        cwd=DEPLOY,
    )


def compose(*words: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The Compose file as Compose understands it."""
    done = run("docker-compose", "-f", "compose.yaml", *words, "config", environment=environment)
    assert done.returncode == 0, done.stderr
    return _yaml(done.stdout)


def stack(environment: Mapping[str, str] = SWARM) -> dict[str, Any]:
    """The stack as Docker understands it."""
    done = run("docker", "stack", "config", "-c", "stack.yaml", environment=environment)
    assert done.returncode == 0, done.stderr
    return _yaml(done.stdout)


def _yaml(text: str) -> dict[str, Any]:
    read: dict[str, Any] = pytest.importorskip("yaml").safe_load(text)
    return read


def _is_engine(volume: Any) -> bool:
    source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
    return str(source).endswith("/docker.sock")


def test_one_service_holds_the_engine():
    """Only the filter has the Docker socket; it has no network, and Greenroom no rights."""
    services = compose()["services"]
    holders = [name for name, one in services.items() if any(map(_is_engine, one.get("volumes", ())))]
    assert holders == ["docker-filter"]
    assert services["docker-filter"]["network_mode"] == "none"
    for name in ("docker-filter", "greenroom", "network-rules"):
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
        assert services[name]["read_only"] is True
    assert "cap_add" not in services["greenroom"]
    assert "user" not in services["greenroom"]  # as the image says, which is nobody
    assert all(not one.get("privileged") and "ports" not in one for one in services.values())


def test_what_this_release_does_not_use_is_not_started():
    """Redis and PostgreSQL wait in the profile ``scale``, on a network that leads nowhere."""
    config = compose()
    assert {"redis", "postgres"}.isdisjoint(config["services"]) or all(
        config["services"][name]["profiles"] == ["scale"] for name in ("redis", "postgres")
    )
    scaled = compose("--profile", "scale")
    assert {"redis", "postgres"} <= scaled["services"].keys()
    assert scaled["networks"]["state"]["internal"] is True


def test_settings_of_compose_and_stack_exist():
    """Every GREENROOM variable that a container gets is a setting, and serves with the values that it has."""
    environments = [one.get("environment", {}) for one in compose()["services"].values()]
    environments += [one.get("environment", {}) for one in stack()["services"].values()]
    given = {name: value for one in environments for name, value in one.items() if name.startswith("GREENROOM_")}
    assert {"GREENROOM_DOMAIN", "GREENROOM_TRUSTED_PROXIES", "GREENROOM_REGISTRY"} <= given.keys()
    fields = {name.removeprefix("GREENROOM_").lower(): value for name, value in given.items() if value is not None}
    assert fields.keys() <= Settings.model_fields.keys()
    Settings(**fields)


def test_the_example_of_an_env_file():
    """As it is, it changes nothing; each variable in it is one that the Compose file asks for."""
    text = (DEPLOY / "greenroom.env.example").read_text()
    shown = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE))
    file = (DEPLOY / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{([A-Z_]+)|^ +(GREENROOM_[A-Z_]+): #", file, re.MULTILINE))
    assert shown.keys() == {name for pair in asked for name in pair if name}
    active = dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert compose(environment=active) == compose()


def test_the_stack_is_what_the_swarm_launcher_needs():
    """On a manager, on its own network, with its socket, a registry, and a token that is a secret."""
    config = stack()
    greenroom = config["services"]["greenroom"]
    assert greenroom["command"] == ["greenroom", "serve", "--launcher", "swarm"]
    assert "node.role == manager" in greenroom["deploy"]["placement"]["constraints"]
    assert greenroom["deploy"]["update_config"]["order"] == "stop-first"
    assert config["networks"]["host"]["external"] is True
    assert "GREENROOM_TOKEN" not in greenroom["environment"]
    assert greenroom["user"] == "10001:999"


@pytest.mark.parametrize("missing", [*SWARM])
def test_a_stack_without_what_it_needs(missing):
    """Deploying fails at once and says what to give."""
    environment = {name: value for name, value in SWARM.items() if name != missing}
    done = run("docker", "stack", "config", "-c", "stack.yaml", environment=environment)
    assert done.returncode != 0
    assert missing in done.stderr


@pytest.fixture
def installed_units(tmp_path: Path) -> list[Path]:
    """The units, for the Greenroom that is installed here."""
    made = []
    for unit in UNITS:
        path = tmp_path / unit.name
        path.write_text(unit.read_text().replace("/opt/greenroom/bin", str(Path(sys.executable).parent)))
        made.append(path)
    return made


def test_units_are_understood(installed_units, tmp_path):
    """systemd has nothing to complain of; it does of a unit with a mistake."""
    assert len(installed_units) == 5
    done = run("systemd-analyze", "verify", *installed_units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    wrong = tmp_path / "wrong.service"
    wrong.write_text(installed_units[0].read_text().replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
    done = run("systemd-analyze", "verify", wrong)
    assert "NoNewPrivilege" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "worst"),
    [
        ("greenroom.service", 2.0),
        ("greenroom-gateway.service", 2.0),
        ("greenroom-autoscaler@.service", 2.0),
        ("greenroom-docker-filter.service", 2.0),
        ("greenroom-network-rules.service", 3.5),
    ],
)
def test_units_are_hardened(installed_units, tmp_path, name, worst):
    """systemd's own measure of what a service could do: 10 is everything, below 2 next to nothing."""
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", tmp_path / name)
    found = re.search(r"Overall exposure level .*: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= worst


def test_units_start_in_the_order_of_their_needs():
    """First the socket, then the rules, then who serves; only the filter is let to the engine."""
    text = {unit.stem: unit.read_text() for unit in UNITS}
    assert re.search(r"^After=.*greenroom-docker-filter.service", text["greenroom-network-rules"], re.MULTILINE)
    assert re.search(r"^After=.*greenroom-network-rules.service", text["greenroom"], re.MULTILINE)
    serving = ("greenroom", "greenroom-gateway", "greenroom-autoscaler@")
    for name in (*serving, "greenroom-network-rules"):
        assert "DOCKER_HOST=unix:///run/greenroom-docker/docker.sock" in text[name]
    for name in serving:
        assert re.search(r"^User=greenroom$", text[name], re.MULTILINE)
        assert re.search(r"^CapabilityBoundingSet=$", text[name], re.MULTILINE)
    for name in serving[1:]:  # the data folder is all theirs, or none of theirs
        assert re.search(r"^Conflicts=greenroom.service$", text[name], re.MULTILINE)


def test_the_caddyfile_is_understood():
    """Caddy takes it: one site for the domain and both kinds of hosts, and a proxy that holds nothing back."""
    environment = {"GREENROOM_DOMAIN": "actors.example.com", "GREENROOM_PORT": "18010"}
    done = run("caddy", "adapt", "--config", "Caddyfile", "--validate", environment=environment)
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)
    (server,) = config["apps"]["http"]["servers"].values()
    hosts = [host for route in server["routes"] for match in route["match"] for host in match["host"]]
    assert sorted(hosts) == ["*.actors.example.com", "*.runs.actors.example.com", "actors.example.com"]
    proxies = [part for part in _parts(config) if part.get("handler") == "reverse_proxy"]
    assert proxies
    assert {(proxy["upstreams"][0]["dial"], proxy["flush_interval"]) for proxy in proxies} == {("127.0.0.1:18010", -1)}
    assert config["admin"]["disabled"] is True


def _parts(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [part for one in value for part in _parts(one)]
    if isinstance(value, dict):
        return [value, *(part for one in value.values() for part in _parts(one))]
    return []
