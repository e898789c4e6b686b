"""The pure parts of the Docker launcher: log lines, addresses, what a container is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.launchers.base import LaunchSpec, Placement
from autoscaler.launchers.docker.addresses import Addresses
from autoscaler.launchers.docker.containers import (
    ContainerRules,
    boot_cpus,
    container_body,
    cpu_quota_usecs,
    cpu_share,
    log_config,
    start_problem,
)
from autoscaler.launchers.docker.log_lines import AlreadyKept, Assembler, line_stamp
from gateway.core.errors import LaunchError
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Address, Build, Origin
from gateway.core.times import parse_iso
from gateway.installation import Installation

# --- Log lines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine_time", "stamp"),
    [
        pytest.param(b"2026-01-02T03:04:05.678901234Z", b"2026-01-02T03:04:05.678Z ", id="nanoseconds"),
        pytest.param(b"2026-01-02T03:04:05.6Z", b"2026-01-02T03:04:05.600Z ", id="zeros left out"),
        pytest.param(b"2026-01-02T03:04:05Z", b"2026-01-02T03:04:05.000Z ", id="a whole second"),
    ],
)
def test_line_stamp(engine_time, stamp):
    """Milliseconds, however many digits the engine gives."""
    assert line_stamp(engine_time) == stamp


_TEXT = st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"").replace(b"\r", b""))


@given(
    lines=st.lists(st.tuples(st.sampled_from([1, 2]), _TEXT), max_size=20),
    cuts=st.data(),
)
def test_pieces_of_lines_are_put_together(lines, cuts):
    """However the engine cuts lines into records, and mixes those of the two streams, each comes out whole and once."""
    records = {1: [], 2: []}
    for number, (stream, text) in enumerate(lines):
        rest = text + b"\n"
        while rest:
            size = cuts.draw(st.integers(1, len(rest)))
            records[stream].append((f"2026-01-02T03:04:{number:02}.5Z ".encode(), rest[:size]))
            rest = rest[size:]
    assembler, out = Assembler(), {1: [], 2: []}
    while records[1] or records[2]:
        stream = cuts.draw(st.sampled_from([stream for stream in (1, 2) if records[stream]]))
        time, piece = records[stream].pop(0)
        out[stream] += [text for _, text in assembler.add(stream, time + piece)]
    assert list(assembler.rest()) == []
    for stream in (1, 2):
        assert out[stream] == [text for its, text in lines if its == stream]


def test_a_line_has_the_time_of_its_beginning():
    """Not that of its last piece."""
    assembler = Assembler()
    assert list(assembler.add(1, b"2026-01-02T03:04:05.1Z begun ")) == []
    assert list(assembler.add(1, b"2026-01-02T03:04:06.2Z ended\r\n")) == [
        (b"2026-01-02T03:04:05.100Z ", b"begun ended")
    ]


def test_a_last_line_without_its_end():
    """Is a line all the same."""
    assembler = Assembler()
    assert list(assembler.add(2, b"2026-01-02T03:04:05.1Z oops")) == []
    assert list(assembler.rest()) == [(b"2026-01-02T03:04:05.100Z ", b"oops")]


def _stamped(lines: list[tuple[int, bytes]]) -> list[bytes]:
    return [f"2026-01-02T03:04:05.{ms:03}Z ".encode() + text for ms, text in lines]


@given(
    said=st.lists(st.tuples(st.integers(0, 6), st.sampled_from([b"a", b"b", b""])), max_size=30),
    own=st.lists(st.integers(0, 9), max_size=4),
    kept=st.integers(0, 30),
)
def test_nothing_twice_and_nothing_missing(said, own, kept):
    """
    A log that was broken off anywhere goes on exactly there, though many lines have one time and one text, and though
    Greenroom's own lines, of any time, stand between them.
    """
    theirs = _stamped(sorted(said, key=lambda line: line[0]))
    tail = sorted([*theirs[:kept], *_stamped([(ms, b"ACTOR: aborting") for ms in own])], key=lambda line: line[:24])
    already = AlreadyKept(tail)
    assert [line for line in theirs if already.is_new(line)] == theirs[kept:]


def test_since_says_from_where_to_ask():
    """From the last line that is the Actor's; of an empty log everything is new."""
    assert AlreadyKept([]).since is None
    assert AlreadyKept([b"not a line of a log"]).since is None
    assert AlreadyKept(_stamped([(1, b"x"), (2, b"ACTOR: y")])).since == b"2026-01-02T03:04:05.001Z "


# --- Addresses ------------------------------------------------------------------------------------------------------


def test_addresses_come_in_turn():
    """The first two of a subnet are not given; what was given back is used again last."""
    addresses = Addresses("10.9.0.0/29")
    assert [addresses.take(run) for run in "abc"] == ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
    assert addresses.take("a") == "10.9.0.2"
    addresses.give_back("a")
    assert [addresses.take(run) for run in "de"] == ["10.9.0.5", "10.9.0.6"]
    assert addresses.take("f") == "10.9.0.2"


def test_addresses_run_out():
    """With what to do in words; an adopted run's address is nobody else's."""
    addresses = Addresses("10.9.0.0/29")
    addresses.keep("adopted", "10.9.0.3")
    assert [addresses.take(run) for run in "abcd"] == ["10.9.0.2", "10.9.0.4", "10.9.0.5", "10.9.0.6"]
    with pytest.raises(LaunchError, match="docker_subnet"):
        addresses.take("e")
    addresses.give_back("adopted")
    assert addresses.take("e") == "10.9.0.3"


# --- Containers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory_mbytes", "cores", "share", "booting"),
    [
        pytest.param(128, 4, 0.03125, 1.0, id="smallest"),
        pytest.param(1024, 4, 0.25, 1.0, id="usual"),
        pytest.param(8192, 4, 2.0, 2.0, id="two cores"),
        pytest.param(32768, 4, 4.0, 4.0, id="no more than there are"),
        pytest.param(4096, 1, 1.0, 1.0, id="one core"),
    ],
)
def test_cpu_share(memory_mbytes, cores, share, booting):
    """Memory ÷ 4096 cores; up to one core until it serves."""
    assert cpu_share(memory_mbytes, cores) == share
    assert boot_cpus(memory_mbytes, cores) == booting
    assert cpu_quota_usecs(share) == round(share * 100_000)


def test_the_kernel_takes_no_quota_below_a_millisecond():
    """So little is given all the same."""
    assert cpu_quota_usecs(0.001) == 1000


def _spec() -> LaunchSpec:
    build = Build(
        id="TheBuild",
        actor_id="actor",
        user_id="user",
        version_number="0.0",
        build_number="0.0.1",
        status=RunStatus.SUCCEEDED,
        started_at=parse_iso("2026-01-02T03:04:05.678Z"),
        origin=Origin.API,
    )
    return LaunchSpec(
        run_id="TheRun",
        build=build,
        env={"A": "1", "B": "x=y\nz"},
        placement=Placement(address=Address(host="10.9.0.2", port=4321), port=4321),
        memory_mbytes=512,
        log_path=Path("run.log"),
        max_log_chars=10_485_760,
    )


RULES = ContainerRules(installation=Installation("0123abcd"), cores=4)


def test_a_container_has_no_more_rights_than_it_needs():
    """No swap, no privileges, none of the capabilities that only attacks use, its own network and nothing mounted."""
    body = container_body(_spec(), "image:tag", RULES, disk_mbytes=1024)
    host = body["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) == (512 * 1024 * 1024, 512 * 1024 * 1024)
    assert host["CapDrop"] == ["ALL"]
    assert not set(host["CapAdd"]) & {"NET_RAW", "MKNOD", "SYS_ADMIN", "SYS_PTRACE", "SETPCAP", "SETFCAP", "SYS_CHROOT"}
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"] == "greenroom-0123abcd"
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"] == {"Name": "no"}
    assert not {"Binds", "Mounts", "Privileged", "PidMode", "IpcMode", "Devices", "StorageOpt"} & set(host)
    assert body["Env"] == ["A=1", "B=x=y\nz"]
    assert body["Labels"]["greenroom.run"] == "TheRun"
    assert body["NetworkingConfig"]["EndpointsConfig"]["greenroom-0123abcd"]["IPAMConfig"]["IPv4Address"] == "10.9.0.2"


def test_options_of_containers():
    """A read-only root has a /tmp to write to; a disk limit is the driver's where it can keep one."""
    rules = ContainerRules(installation=RULES.installation, cores=4, read_only=True, disk_quota=True)
    host = container_body(_spec(), "image:tag", rules, disk_mbytes=1024)["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert "size=" in host["Tmpfs"]["/tmp"]
    assert host["StorageOpt"] == {"size": "1024M"}


@pytest.mark.parametrize(
    ("max_log_chars", "size"),
    [pytest.param(1000, "1m", id="smallest"), pytest.param(10_485_760, "16m", id="default, bounded")],
)
def test_the_engine_keeps_little_of_a_log(max_log_chars, size):
    """What was not read yet has a bound on disk."""
    assert log_config(max_log_chars)["Config"] == {"max-size": size, "max-file": "2"}


def test_start_problem():
    """The runtime's last words, without its chain of callers."""
    message = (
        "Docker: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container "
        'process: exec: "nope": executable file not found in $PATH: unknown'
    )
    assert start_problem(message) == 'exec: "nope": executable file not found in $PATH.'
    assert start_problem("Docker: no space left on device") == "no space left on device."
