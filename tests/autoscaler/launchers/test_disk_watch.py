"""Runs that write too much: what is measured, when, and what comes of it; with the quota of the engine, and without."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launcher_builds import ContainerBuilds, open_launcher, start_run, until

from autoscaler.launchers.base import Exited
from autoscaler.launchers.docker.disk_rules import (
    Looked,
    disk_mbytes,
    is_due,
    may_have_quotas,
    refuses_quotas,
    too_deep,
    too_much,
)
from autoscaler.launchers.docker.disk_usage import TooDeep, deleted_bytes, disk_used_bytes, tree_bytes
from autoscaler.launchers.docker.engine import Engine
from gateway.core.model import Build
from gateway.installation import BUILD_LABEL, INSTALLATION_LABEL, installation_of

MIB = 1024 * 1024
PLENTY = 10**12


# --- When a container is looked at -----------------------------------------------------------------------------------

LAST = Looked(at=100.0, cost_secs=0.01, written_bytes=56 * MIB, disk_used_bytes=1000 * MIB, cpu_secs=1.0)


def due(
    last: Looked | None = LAST, *, secs: float = 2.0, grown_mib: int | None = 150, cpu_secs: float | None = 1.1
) -> bool:
    used = None if grown_mib is None else (1000 + grown_mib) * MIB
    return is_due(last, 100.0 + secs, limit_bytes=256 * MIB, disk_used_bytes=used, cpu_secs=cpu_secs)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param({"last": None, "secs": 0.0, "grown_mib": 0}, True, id="never seen"),
        pytest.param({}, True, id="the disk is fuller by three quarters of what it has left"),
        pytest.param({"grown_mib": 99}, False, id="by less than the half"),
        pytest.param({"grown_mib": -500}, False, id="somebody has deleted much"),
        pytest.param({"secs": 0.9}, False, id="a moment ago"),
        pytest.param({"cpu_secs": 1.0}, False, id="it has done nothing since"),
        pytest.param({"cpu_secs": 1.0, "secs": 30.0, "grown_mib": 0}, True, id="half a minute is over"),
        pytest.param({"cpu_secs": None}, True, id="nobody knows what it has done"),
        pytest.param({"last": replace(LAST, cost_secs=0.2)}, False, id="a look is dear"),
        pytest.param({"last": replace(LAST, cost_secs=0.2), "secs": 4.1}, True, id="but affordable now and then"),
        pytest.param({"last": replace(LAST, cost_secs=0.2), "grown_mib": 200}, True, id="or in place: it may be over"),
        pytest.param({"grown_mib": None}, True, id="unknown disk: every 2 s"),
        pytest.param({"grown_mib": None, "secs": 1.9}, False, id="unknown disk: not before"),
        pytest.param({"grown_mib": None, "cpu_secs": 1.0}, False, id="unknown disk: nothing done"),
        pytest.param({"last": replace(LAST, disk_used_bytes=None)}, True, id="the disk was unknown then"),
    ],
)
def test_when_a_container_is_looked_at(arguments: Mapping[str, Any], expected: bool) -> None:
    """Soon where it may have written too much, seldom where it can't have."""
    assert due(**arguments) is expected


@given(st.floats(1, 29, exclude_max=True), st.integers(0, 300), st.integers(0, 2000), st.floats(0, 0.05), st.booleans())
def test_who_may_be_over_his_limit_is_looked_at(
    secs: float, written_mib: int, grown_mib: int, cost_secs: float, is_cpu_known: bool
) -> None:
    """A second after the last look, whoever works is due if the disk has become fuller by all that he has left."""
    last = replace(LAST, written_bytes=written_mib * MIB, cost_secs=cost_secs)
    left_mib = max(0, 256 - written_mib)
    found = due(last, secs=secs, grown_mib=grown_mib, cpu_secs=1.5 if is_cpu_known else None)
    assert found or grown_mib < left_mib


def test_the_limit_and_its_message() -> None:
    """Twice the memory, as on the platform; whoever reads the message knows what it is and what to do."""
    assert disk_mbytes(128) == 256
    assert "256 MiB" in too_much(256)
    assert "more memory" in too_much(256)


# --- Quotas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        pytest.param({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "xfs"]]}, True, id="XFS"),
        pytest.param({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]}, False, id="ext4"),
        pytest.param({"Driver": "overlay2", "DriverStatus": None}, False, id="not told"),
        pytest.param({"Driver": "btrfs", "DriverStatus": []}, False, id="btrfs counts the image too"),
        pytest.param({"Driver": "vfs"}, False, id="plain folders"),
        pytest.param({}, False, id="nothing told"),
        pytest.param(
            {"Driver": "overlay2", "DriverStatus": [["odd"], ["Backing Filesystem", "xfs"]]}, True, id="odd line"
        ),
    ],
)
def test_which_drivers_may_have_quotas(info: Mapping[str, Any], expected: bool) -> None:
    """What is tried once."""
    assert may_have_quotas(info) is expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            "Docker: --storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            True,
            id="overlay2",
        ),
        pytest.param("Docker: --storage-opt is not supported for vfs", True, id="vfs"),
        pytest.param("Docker: no space left on device", False, id="a full disk"),
    ],
)
def test_which_refusal_is_due_to_the_quota(message: str, expected: bool) -> None:
    """Only then it is tried without one."""
    assert refuses_quotas(message) is expected


# --- What is measured ------------------------------------------------------------------------------------------------


def filled(path: Path, mib: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(int(mib * MIB)))
    return path


def test_all_files_count_once(tmp_path: Path) -> None:
    """In every depth; by the room that they take, and a file of several names only once."""
    filled(tmp_path / "a", 1)
    filled(tmp_path / "deep/er/b", 2)
    (tmp_path / "deep/again").hardlink_to(tmp_path / "a")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1000 * MIB)
    assert 3 * MIB <= tree_bytes(str(tmp_path), PLENTY) < 3.1 * MIB


def test_empty_files_and_folders_take_their_place(tmp_path: Path) -> None:
    """There is only so much room for their names."""
    for number in range(500):
        (tmp_path / f"file{number}").touch()
        (tmp_path / f"folder{number}").mkdir()
    assert tree_bytes(str(tmp_path), PLENTY) >= 1000 * 1024


def test_no_link_leads_out(tmp_path: Path) -> None:
    """Neither to a file nor to a folder; a loop ends."""
    inside = tmp_path / "inside"
    filled(tmp_path / "outside/big", 3)
    inside.mkdir()
    (inside / "file").symlink_to(tmp_path / "outside/big")
    (inside / "folder").symlink_to(tmp_path / "outside")
    (inside / "loop").symlink_to(inside)
    os.mkfifo(inside / "pipe")
    assert tree_bytes(str(inside), PLENTY) < 20 * 1024
    with pytest.raises(OSError, match="loop"):
        tree_bytes(str(inside / "loop"), PLENTY)


def test_enough_is_enough(tmp_path: Path) -> None:
    """As soon as it is certain that it is too much, the rest is not looked at."""
    for number in range(10):
        filled(tmp_path / str(number), 1)
    assert 2 * MIB < tree_bytes(str(tmp_path), 2 * MIB) < 4 * MIB


def test_too_many_folders_in_one_another(tmp_path: Path) -> None:
    """Deeper than any path may be long: told, not overlooked; nothing stays open."""
    opened = len([*Path("/proc/self/fd").iterdir()])
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(150):
        os.mkdir("d" * 100, dir_fd=fd)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(TooDeep):
        tree_bytes(str(tmp_path), PLENTY)
    assert len([*Path("/proc/self/fd").iterdir()]) == opened


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Told, so that somebody else is asked."""
    with pytest.raises(FileNotFoundError):
        tree_bytes(str(tmp_path / "nothing"), PLENTY)
    assert disk_used_bytes(str(tmp_path / "nothing")) is None
    used = disk_used_bytes(str(tmp_path))
    assert used is not None
    assert used > 0


def test_deleted_files_count_as_long_as_they_are_open(tmp_path: Path) -> None:
    """Once for each, however often it is open; nothing of those that are still there, or in memory, or elsewhere."""
    path = filled(tmp_path / "gone", 2)
    filled(tmp_path / "there", 1)
    me = [os.getpid()]
    before = deleted_bytes(me, [str(tmp_path)])
    with path.open("rb"), path.open("rb"), (tmp_path / "there").open("rb"):
        path.unlink()
        memory = os.memfd_create("memory")
        os.write(memory, b"x" * MIB)
        assert 2 * MIB <= deleted_bytes(me, [str(tmp_path)]) - before < 2.1 * MIB
        os.close(memory)
    assert deleted_bytes(me, [str(tmp_path)]) == before
    assert deleted_bytes([2**22 + 1], []) == 0


# --- Real containers -------------------------------------------------------------------------------------------------

_FILL = """
    import os, time
    os.makedirs("{folder}", exist_ok=True)
    print("fills", flush=True)
    block, names = os.urandom(1 << 20), []
    for number in range(3000):
        names.append("{folder}/" + str(number))
        file = open(names[-1], "wb")
        {unlink}
        file.write(block)
        file.flush()
        {keep}
        if number % 8 == 0:
            time.sleep(.02)  # else a machine with a small disk would be full before anybody could look
"""


def filler(folder: str = "/fill", *, deleted: bool = False) -> str:
    keep = "globals().setdefault('kept', []).append(file)" if deleted else "file.close()"
    return _FILL.format(folder=folder, unlink="os.unlink(names[-1])" if deleted else "pass", keep=keep)


MODEST = """
    import time
    with open("/little", "wb") as file:
        for _ in range(200):
            file.write(b"x" * (1 << 20))
    print("has written", flush=True)
    time.sleep(600)
"""


def with_volume(build: Build, folder: Path) -> Build:
    """The same build, whose image declares the volume ``/volume``."""
    installation = installation_of(folder)
    client = Engine().connect()
    labels = {INSTALLATION_LABEL: installation.id}
    container = client.create_container(f"{installation.image_name}:{build.id}", labels=labels)
    conf = {"Volumes": {"/volume": {}}, "Labels": {**labels, BUILD_LABEL: build.id}}
    client.commit(container["Id"], installation.image_name, build.id, conf=conf)
    client.remove_container(container["Id"])
    client.close()
    return build


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(filler(), id="many files"),
        pytest.param(filler(deleted=True), id="deleted, but open"),
        pytest.param(filler("/volume/below"), id="in a volume of its image"),
    ],
)
async def test_a_filler_is_ended(launcher: Any, builds: ContainerBuilds, tmp_path: Path, script: str) -> None:
    """It ends with the reason, soon after the limit; who writes less stays, and is not disturbed."""
    modest = await start_run(launcher, builds.script(MODEST), tmp_path)
    await until(lambda: modest.log() == ["has written"])
    run = await start_run(launcher, with_volume(builds.script(script), tmp_path), tmp_path)
    exited = await launcher.wait(run.id)
    assert (exited.exit_code, exited.reason, exited.out_of_memory) == (137, too_much(256), False)
    assert modest.id in await launcher.usage()


@pytest.mark.slow
async def test_what_cannot_be_measured_is_ended(launcher: Any, builds: ContainerBuilds, tmp_path: Path) -> None:
    """Folders deeper than any path may be long would hide what lies in them."""
    script = """
        import os, time
        for _ in range(200):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
        while True: time.sleep(.1)
    """
    run = await start_run(launcher, builds.script(script), tmp_path)
    assert await launcher.wait(run.id) == Exited(exit_code=137, reason=too_deep(100))


@pytest.mark.slow
async def test_elsewhere_the_engine_is_asked(
    monkeypatch: pytest.MonkeyPatch, builds: ContainerBuilds, tmp_path: Path
) -> None:
    """Where the layers are not in reach, they are the engine's to measure."""
    monkeypatch.setattr("autoscaler.launchers.docker.disk_watch.DiskWatch.root_of", staticmethod(lambda *_: None))
    async with open_launcher("docker", tmp_path, builds) as launcher:
        modest = await start_run(launcher, builds.script(MODEST), tmp_path)
        await until(lambda: modest.log() == ["has written"])
        run = await start_run(launcher, builds.script(filler()), tmp_path)
        assert (await launcher.wait(run.id)).reason == too_much(256)
        assert modest.id in await launcher.usage()


async def test_an_engine_without_quotas_is_found_out_by_trying(
    launcher: Any, builds: ContainerBuilds, tmp_path: Path
) -> None:
    """What looks like a driver with quotas and has none costs one refused call, and no run."""
    launcher._maker.rules = replace(launcher._maker.rules, disk_quota=True)
    run = await start_run(launcher, builds.script("print('runs')"), tmp_path)
    assert (await launcher.wait(run.id)).exit_code == 0
    assert launcher._maker.rules.disk_quota is False
