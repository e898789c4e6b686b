"""The load of containers: what the kernel's files say, where they are found, and what the engine says instead."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launcher_builds import until

from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker.cgroup_text import (
    Mounts,
    files_of,
    groups_of,
    memory_in_use,
    mounts_of,
    network_bytes,
    usual_files,
    value_of,
)
from autoscaler.launchers.docker.cgroups import Cgroups
from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.meter import Meter, usage_of_stats
from autoscaler.launchers.docker.run_container import RunContainer
from gateway.core.load import Usage
from gateway.installation import INSTALLATION_LABEL

ID = "3bd0260277c31ceb45c60637e3b3f96c8740475f168d18c392204bab2a3a0e64"
MIB = 1024 * 1024
ODD_GROUP = f"/greenroom-tests-{os.getpid()}"

SEPARATE = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
TOGETHER = """\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:11 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
IN_A_CONTAINER = """\
600 590 0:29 /docker/abc /sys/fs/cgroup/cpu ro,nosuid,nodev,noexec,relatime master:15 - cgroup cgroup rw,cpu
601 590 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:15 - cgroup cgroup rw,memory
"""

V2_CPU_STAT = b"""\
usage_usec 1234567
user_usec 1000000
system_usec 234567
nr_periods 40
nr_throttled 7
throttled_usec 99000
"""
V1_CPU_STAT = b"nr_periods 40\nnr_throttled 7\nthrottled_time 99000000\n"
NET_DEV = b"""\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs ...
    lo:    5000       8    0    0    0     0          0         0     5000       0    0
  eth0:     736       8    0    0    0     0          0         0       42       1    0
  eth1:1000000000000  8    0    0    0     0          0         0      100       1    0
"""


# --- What is written there ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mountinfo", "is_v1", "cpu_stat", "cpu_usage"),
    [
        pytest.param(
            SEPARATE,
            True,
            f"/sys/fs/cgroup/cpu/docker/{ID}/cpu.stat",
            f"/sys/fs/cgroup/cpuacct/docker/{ID}/cpuacct.usage",
            id="version 1, beside a version 2 without controllers",
        ),
        pytest.param(
            TOGETHER,
            True,
            f"/sys/fs/cgroup/cpu,cpuacct/docker/{ID}/cpu.stat",
            f"/sys/fs/cgroup/cpu,cpuacct/docker/{ID}/cpuacct.usage",
            id="two controllers in one place",
        ),
        pytest.param(UNIFIED, False, f"/sys/fs/cgroup/docker/{ID}/cpu.stat", None, id="version 2"),
    ],
)
def test_places(mountinfo: str, is_v1: bool, cpu_stat: str, cpu_usage: str | None) -> None:
    """A container's files are where the mounts say, by the names of the cgroupfs driver, then of systemd's."""
    mounts = mounts_of(mountinfo)
    assert mounts.is_v1 is is_v1
    cgroupfs, systemd = usual_files(mounts, ID)
    assert (cgroupfs.cpu_stat, cgroupfs.cpu_usage) == (cpu_stat, cpu_usage)
    assert systemd.cpu_stat == cpu_stat.replace(f"/docker/{ID}/", f"/system.slice/docker-{ID}.scope/")


@pytest.mark.parametrize(
    "mountinfo",
    [
        pytest.param("", id="nothing is mounted"),
        pytest.param(IN_A_CONTAINER, id="Greenroom is in a container itself"),
        pytest.param("what\n - cgroup\n1 2 3 / /x - cgroup2\n", id="nonsense"),
        pytest.param(SEPARATE.replace("cgroup rw,memory", "cgroup rw,pids").partition("41 31")[0], id="no memory"),
    ],
)
def test_groups_out_of_reach(mountinfo: str) -> None:
    """Nothing is looked for then, and nothing raised."""
    assert list(usual_files(mounts_of(mountinfo), ID)) == []
    assert Cgroups(mounts_of(mountinfo)).read([ID]) == {}


@pytest.mark.parametrize(
    ("text", "mounts", "expected"),
    [
        pytest.param(
            f"9:name=systemd:/x\n4:memory:/a/{ID}\n2:cpu,cpuacct:/b/{ID}\n0::/c\n",
            TOGETHER,
            f"/sys/fs/cgroup/memory/a/{ID}/memory.stat",
            id="version 1",
        ),
        pytest.param(f"0::/odd:name/{ID}\n", UNIFIED, f"/sys/fs/cgroup/odd:name/{ID}/memory.stat", id="version 2"),
        pytest.param(f"0::/../../{ID}\n", UNIFIED, None, id="outside of our namespace"),
        pytest.param(f"4:memory:/a/{ID}\n", TOGETHER, None, id="a controller is missing"),
        pytest.param("", UNIFIED, None, id="nothing"),
        pytest.param("nonsense\n", UNIFIED, None, id="nonsense"),
    ],
)
def test_a_group_by_one_of_its_processes(text: str, mounts: str, expected: str | None) -> None:
    """``/proc/<pid>/cgroup`` names the group, wherever an administrator has put it."""
    found = files_of(mounts_of(mounts), groups_of(text))
    assert (found.memory_stat if found else None) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(b"usage_usec", 1234567, id="the first line"),
        pytest.param(b"nr_throttled", 7, id="in between"),
        pytest.param(b"throttled_usec", 99000, id="the last line"),
        pytest.param(b"usec", None, id="the end of a name is not that name"),
        pytest.param(b"nr", None, id="nor is its beginning"),
    ],
)
def test_value_of(name: bytes, expected: int | None) -> None:
    """Whole names only, with or without a line behind."""
    assert value_of(name, V2_CPU_STAT) == expected
    assert value_of(name, V2_CPU_STAT.rstrip(b"\n")) == expected
    assert value_of(name, b"") is None


@pytest.mark.parametrize(
    ("usage", "stat", "expected"),
    [
        pytest.param(75, b"cache 60\ninactive_file 9\ntotal_inactive_file 50\n", 25, id="version 1: with groups below"),
        pytest.param(75, b"anon 10\ninactive_file 50\nactive_file 5\n", 25, id="version 2"),
        pytest.param(10, b"inactive_file 50\n", 0, id="read at two moments: never negative"),
        pytest.param(10, b"", 10, id="nothing told"),
    ],
)
def test_memory_is_without_files_that_can_be_dropped(usage: int, stat: bytes, expected: int) -> None:
    """As ``docker stats`` has it."""
    assert memory_in_use(usage, stat) == expected


def test_network_is_of_all_interfaces_but_the_own_one() -> None:
    """Also where a large figure touches the name."""
    assert network_bytes(NET_DEV) == (1_000_000_000_736, 142)
    assert network_bytes(b"") == (0, 0)


@given(st.binary(max_size=300))
def test_no_text_of_the_kernel_is_too_odd(text: bytes) -> None:
    """What can't be understood is refused as ValueError, which counts as nothing told, or is nothing."""
    for parse in (lambda: value_of(b"a", text), lambda: memory_in_use(5, text), lambda: network_bytes(text)):
        try:
            parse()
        except ValueError:
            continue
    files_of(mounts_of(text.decode(errors="replace")), groups_of(text.decode(errors="replace")))


# --- The files, in a folder that is laid out as the kernel does ------------------------------------------------------


def laid_out(folder: Path, files: Mapping[str, bytes], group: str = f"docker/{ID}") -> Path:
    (folder / group).mkdir(parents=True)
    for name, content in files.items():
        (folder / group / name).write_bytes(content)
    return folder / group


V2_FILES = {
    "cpu.stat": V2_CPU_STAT,
    "memory.current": b"9000\n",
    "memory.stat": b"anon 5\ninactive_file 1000\n",
    "cgroup.procs": b"",
}


@pytest.mark.parametrize("group", [f"docker/{ID}", f"system.slice/docker-{ID}.scope"], ids=["cgroupfs", "systemd"])
def test_version_2(tmp_path: Path, group: str) -> None:
    """All but the processes stands in three files."""
    laid_out(tmp_path, V2_FILES | {"cgroup.procs": f"{os.getpid()}\n{os.getppid()}\n".encode()}, group)
    usage = Cgroups(Mounts({}, str(tmp_path))).read([ID])[ID]
    assert (usage.life, usage.cpu_secs, usage.memory_bytes) == (ID, 1.234567, 8000)
    assert (usage.processes, usage.throttled_periods, usage.is_booting) == (2, 7, False)
    assert usage.net_rx_bytes is not None
    assert usage.net_rx_bytes > 0


def test_version_1(tmp_path: Path) -> None:
    """Three controllers, of which each may lie elsewhere."""
    laid_out(tmp_path / "cpu", {"cpu.stat": V1_CPU_STAT})
    laid_out(tmp_path / "acct", {"cpuacct.usage": b"1500000000\n"})
    memory = {
        "memory.usage_in_bytes": b"9000\n",
        "memory.stat": b"x 1\ntotal_inactive_file 1000\n",
        "cgroup.procs": b"",
    }
    laid_out(tmp_path / "memory", memory)
    mounts = {
        name: str(tmp_path / place) for name, place in (("cpu", "cpu"), ("cpuacct", "acct"), ("memory", "memory"))
    }
    usage = Cgroups(Mounts(mounts, None)).read([ID])[ID]
    assert (usage.cpu_secs, usage.memory_bytes, usage.throttled_periods) == (1.5, 8000, 7)
    assert (usage.processes, usage.net_rx_bytes, usage.net_tx_bytes) == (0, None, None)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"memory.stat": None}, id="a file is missing"),
        pytest.param({"memory.current": b"max\n"}, id="not a number"),
        pytest.param({"memory.current": b""}, id="an empty file"),
    ],
)
def test_a_group_that_cannot_be_read_is_left_out(tmp_path: Path, files: Mapping[str, bytes | None]) -> None:
    """The others are told all the same."""
    laid_out(tmp_path, {name: content for name, content in (V2_FILES | dict(files)).items() if content is not None})
    other = "f" * 64
    laid_out(tmp_path, V2_FILES, f"docker/{other}")
    assert set(Cgroups(Mounts({}, str(tmp_path))).read([ID, "e" * 64, other])) == {other}


def test_a_long_list_of_processes_is_read_to_its_end(tmp_path: Path) -> None:
    """The kernel gives a page at a time."""
    group = laid_out(tmp_path, V2_FILES | {"cgroup.procs": b"".join(b"%d\n" % (10**7 + n) for n in range(20_000))})
    cgroups = Cgroups(Mounts({}, str(tmp_path)))
    assert cgroups.read([ID])[ID].processes == 20_000
    assert len(cgroups.processes(ID)) == 20_000
    (group / "cgroup.procs").unlink()
    assert cgroups.read([ID]) == {}
    assert cgroups.processes(ID) == []


def test_an_ended_container_is_forgotten(tmp_path: Path) -> None:
    """Neither its usage nor its place is told any more."""
    laid_out(tmp_path, V2_FILES | {"cgroup.procs": b"7\n"})
    cgroups = Cgroups(Mounts({}, str(tmp_path)))
    assert set(cgroups.read([ID])) == {ID}
    assert cgroups.processes(ID) == [7]
    shutil.rmtree(tmp_path / "docker")
    assert cgroups.read([ID]) == {}
    assert cgroups.processes(ID) == []


def test_the_pid_of_a_stranger_teaches_nothing() -> None:
    """The process may have ended, and its number be another one's."""
    cgroups = Cgroups.of_this_machine()
    assert cgroups.learn(ID, os.getpid()) is None
    assert cgroups.learn(ID, 2**22 + 1) is None


# --- What the engine says instead -------------------------------------------------------------------------------------

STATS: Mapping[str, Any] = {
    "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}, "throttling_data": {"throttled_periods": 7}},
    "memory_stats": {"usage": 9000, "stats": {"inactive_file": 5, "total_inactive_file": 1000}},
    "networks": {"eth0": {"rx_bytes": 5, "tx_bytes": 6}, "eth1": {"rx_bytes": 50, "tx_bytes": 60}},
    "pids_stats": {"current": 3},
}


def test_stats_of_the_engine() -> None:
    """The same figures as from the kernel."""
    assert usage_of_stats(ID, STATS) == Usage(
        life=ID,
        cpu_secs=1.5,
        memory_bytes=8000,
        processes=3,
        throttled_periods=7,
        net_rx_bytes=55,
        net_tx_bytes=66,
    )


def test_stats_of_an_ended_container() -> None:
    """The engine answers with zeros, and that is no usage."""
    assert usage_of_stats(ID, {"memory_stats": {}, "cpu_stats": {"cpu_usage": {"total_usage": 0}}}) is None


def test_stats_without_a_network() -> None:
    """Unknown is not nothing."""
    usage = usage_of_stats(ID, {name: value for name, value in STATS.items() if name != "networks"})
    assert usage is not None
    assert (usage.net_rx_bytes, usage.net_tx_bytes) == (None, None)


# --- Real containers --------------------------------------------------------------------------------------------------

# 40 MiB of its own, 20 MiB in memory that only looks like files, 50 MiB of files; then some CPU.
USES_MUCH = """
block = bytearray(b"x" * (40 << 20))
open("/dev/shm/shared", "wb").write(b"x" * (20 << 20))
open("/file", "wb").write(b"x" * (50 << 20))
import os, time
os.posix_fadvise(os.open("/file", os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
while time.process_time() < 0.5: pass
print("ready", flush=True)
time.sleep(600)
"""

Run = Callable[..., Awaitable[RunContainer]]


@pytest.fixture
def engine(docker_host: str) -> Iterator[Engine]:
    opened = Engine(docker_host)
    yield opened
    opened.close()


@pytest.fixture
async def run(engine: Engine, tmp_path: Path) -> AsyncIterator[Run]:
    """Starts a container that runs a script, and is removed in the end."""
    client = engine.connect()
    made: list[str] = []

    async def start(script: str, *, cpus_after_boot: float | None = None, **host: Any) -> RunContainer:
        container = client.create_container(
            "greenroom-tests:base",
            ["python3", "-c", script],
            labels={INSTALLATION_LABEL: secrets.token_hex(4)},
            host_config=client.create_host_config(mem_limit="256m", init=True, **host),
        )
        made.append(container["Id"])
        client.start(container["Id"])
        await until(lambda: b"ready" in client.logs(container["Id"]))
        return RunContainer(
            run_id=secrets.token_hex(4),
            container_id=container["Id"],
            placement={},
            log_path=tmp_path / "log",
            max_log_chars=1000,
            engine=engine,
            chores=Chores(),
            quiet=lambda: asyncio.sleep(0),
            disk_mbytes=512,
            cpus_after_boot=cpus_after_boot,
        )

    yield start
    for container_id in made:
        client.remove_container(container_id, force=True)
    remove_odd_groups()
    client.close()


def remove_odd_groups() -> None:
    """Which the engine has made, and leaves."""
    for pattern in (f"*{ODD_GROUP}", ODD_GROUP[1:]):
        for left in Path("/sys/fs/cgroup").glob(pattern):
            left.rmdir()


IDLE = "print('ready', flush=True); import time; time.sleep(600)"


@pytest.mark.parametrize(
    ("source", "is_odd"),
    [
        pytest.param("kernel", False, id="from the kernel"),
        pytest.param("kernel", True, id="in a group of an unusual name"),
        pytest.param("engine", False, id="from the engine"),
    ],
)
async def test_whoever_tells_the_figures_are_the_same(engine: Engine, run: Run, source: str, is_odd: bool) -> None:
    """CPU, memory with what is shared but without files, network, processes: as the engine itself shows them."""
    driver = (await engine.ask(lambda client: client.info()))["CgroupDriver"]
    parent = f"greenroomtests{os.getpid()}.slice" if driver == "systemd" else ODD_GROUP
    one = await run(USES_MUCH, **({"cgroup_parent": parent} if is_odd else {}))
    meter = Meter(engine, Cgroups.of_this_machine() if source == "kernel" else None)
    usage = (await meter.usage([one]))[one.run_id]
    assert usage.life == one.container_id
    assert 0.5 <= usage.cpu_secs < 3
    assert 60 * MIB <= usage.memory_bytes < 85 * MIB
    assert usage.processes == 2
    assert meter.cpu_secs(one.container_id) == usage.cpu_secs
    stats = await engine.ask(lambda client: client.stats(one.container_id, stream=False, one_shot=True))
    shown = usage_of_stats(one.container_id, stats)
    assert shown is not None
    assert abs(shown.memory_bytes - usage.memory_bytes) < 2 * MIB
    assert usage.net_rx_bytes is not None
    assert shown.net_rx_bytes is not None
    assert abs(shown.net_rx_bytes - usage.net_rx_bytes) < 10_000
    assert usage.throttled_periods == shown.throttled_periods == 0


async def test_a_held_back_container(engine: Engine, run: Run) -> None:
    """The kernel counts the periods in which it had used up its share."""
    one = await run(IDLE.replace("time.sleep(600)", "\nwhile True: pass"), cpu_period=100_000, cpu_quota=10_000)
    meter = Meter.of(engine)

    async def throttled() -> int:
        return (await meter.usage([one]))[one.run_id].throttled_periods or 0

    async with asyncio.timeout(20):
        while await throttled() < 3:  # noqa: ASYNC110 - the kernel counts without telling
            await asyncio.sleep(0.05)


async def test_booting_is_told(engine: Engine, run: Run) -> None:
    """As long as a run has the share of its start."""
    one, other = await run(IDLE, cpus_after_boot=0.25), await run(IDLE)
    usages = await Meter.of(engine).usage([one, other])
    assert (usages[one.run_id].is_booting, usages[other.run_id].is_booting) == (True, False)


@pytest.mark.parametrize("source", ["kernel", "engine"])
async def test_of_what_has_ended_nothing_is_told(engine: Engine, run: Run, source: str) -> None:
    """Whether its end is known already, or it has just been killed; the others are told."""
    ended, killed, alive = await run(IDLE), await run(IDLE), await run(IDLE)
    meter = Meter(engine, Cgroups.of_this_machine() if source == "kernel" else None)
    assert set(await meter.usage([ended, killed, alive])) == {ended.run_id, killed.run_id, alive.run_id}
    ended.ended.set()
    await engine.ask(lambda client: client.kill(killed.container_id))
    await engine.ask(lambda client: client.wait(killed.container_id))
    assert set(await meter.usage([ended, killed, alive])) == {alive.run_id}
    assert meter.cpu_secs(killed.container_id) is None


# The library leaves a socket that could not be connected to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_engine_out_of_reach_tells_nothing(tmp_path: Path) -> None:
    """No figures, and no error: the next look may have better luck."""
    nowhere = Engine(f"unix://{tmp_path}/nothing.sock")
    one = RunContainer(
        run_id="r",
        container_id=ID,
        placement={},
        log_path=tmp_path / "log",
        max_log_chars=1,
        engine=nowhere,
        chores=Chores(),
        quiet=lambda: asyncio.sleep(0),
        disk_mbytes=1,
    )
    assert await Meter.of(nowhere).usage([one]) == {}
    nowhere.close()
    gc.collect()
