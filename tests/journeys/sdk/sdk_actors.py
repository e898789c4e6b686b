"""The test Actors on the official SDKs, each with the version that a test wants, and where their packages are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import ACTORS, Greenroom

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


@dataclass(frozen=True)
class Sdk:
    """One version of one SDK: the test Actor that is written on it, and the packages that it gets."""

    name: str
    source: str
    dependencies: Mapping[str, str]
    program: str = "exec python3 main.py"
    crash_code: int = 91  # of an error that nobody catches
    exits_with_its_code: bool = True  # or an exit in the middle counts as such an error

    def lay_out(self, parent: Path) -> Path:
        """A folder of this Actor, named after the version."""
        folder = parent / self.name
        shutil.copytree(ACTORS / self.source, folder)
        for name, text in self.dependencies.items():
            (folder / name).write_text(text)
        path = folder / ".actor" / "actor.json"
        definition = json.loads(path.read_text()) | {"name": self.name, "scripts": {"run": self.program}}
        path.write_text(json.dumps(definition))
        return folder


def _npm(dependencies: Mapping[str, str]) -> dict[str, str]:
    package = {"private": True, "dependencies": dict(dependencies)}
    # No package needs its install script here, and the peers of old versions are browsers.
    return {"package.json": json.dumps(package), ".npmrc": "ignore-scripts=true\nlegacy-peer-deps=true\n"}


# The crawlers get the same packages as the other Actors, so that one environment serves both.
PYTHON_PACKAGES = {"requirements.txt": "apify==4.1.0\n"}
NODE_PACKAGES = _npm({"apify": "3.7.2", "@crawlee/basic": "3.18.1"})

PYTHON = Sdk("python-4", "sdk-python", PYTHON_PACKAGES)
PYTHON_BEFORE = Sdk("python-3", "sdk-python", {"requirements.txt": "apify==3.4.1\n"}, exits_with_its_code=False)
JAVASCRIPT = Sdk("javascript-3", "sdk-javascript", NODE_PACKAGES, "exec node main.mjs", crash_code=1)
JAVASCRIPT_BEFORE = Sdk("javascript-2", "sdk-javascript", _npm({"apify": "2.3.2"}), "exec node main-2.cjs")
CRAWL_PYTHON = Sdk("crawl-python", "crawl-python", PYTHON_PACKAGES)
CRAWL_JAVASCRIPT = Sdk("crawl-javascript", "crawl-javascript", NODE_PACKAGES, "exec node main.mjs")


def packages_for_all(factory: pytest.TempPathFactory) -> Path:
    """A folder of environments that all servers of this test session share, also those of other test processes."""
    base = factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "sdk-environments"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def with_packages(data: Path, environments: Path) -> Path:
    """A data folder, not yet used, whose Actors' packages are kept in *environments*."""
    (data / "process").mkdir(mode=0o700, parents=True)
    (data / "process" / "envs").symlink_to(environments)
    return data


async def start(greenroom: Greenroom, sdk: Sdk, given: Any = None, **query: Any) -> dict[str, Any]:
    """A batch run of the Actor that has just been asked for."""
    options = {} if given is None else {"json": given}
    return dict(await greenroom.data_of("POST", f"/actors/{sdk.name}/runs", params=query, **options))


async def items_of(greenroom: Greenroom, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What lies in the run's default dataset."""
    answer = await greenroom.api("GET", f"/datasets/{run['defaultDatasetId']}/items")
    assert answer.status_code == 200, answer.text
    return list(answer.json())


async def record_of(greenroom: Greenroom, run: Mapping[str, Any], key: str) -> Any:
    """A JSON record of the run's default key-value store."""
    answer = await greenroom.api("GET", f"/key-value-stores/{run['defaultKeyValueStoreId']}/records/{key}")
    assert answer.status_code == 200, f"{key}: {answer.text}\n{await greenroom.log_of(run['id'])}"
    return answer.json()
