"""Where the time of Greenroom's worker goes under load, by py-spy where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from loadtests.compare_samples import Bench
from loadtests.compare_targets import NotMeasured, Target

_SECS = 6
_LINES = 30
_OTHER_THREAD = "Thread._bootstrap"


def profile(target: Target, bench: Bench, path: Path) -> None:
    """
    Collapsed stacks of the serving process under steady and then under varied load, in *path*, and the top of them.

    Nothing is measured meanwhile: being sampled slows the process down.
    """
    beside = Path(sys.executable).parent / "py-spy"
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        print("no profile: py-spy is not installed", flush=True)
        return
    for kind, load in (("steady", bench.steady), ("varied", bench.varied)):
        stacks = path.with_name(f"{path.stem}.{kind}{path.suffix or '.txt'}")
        command = [program, "record", "--pid", str(target.serving()), "--duration", str(_SECS), "--rate", "500"]
        command += ["--format", "raw", "--native", "--output", str(stacks)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as sampling:
            try:
                load(target, _SECS)
            except NotMeasured as error:
                print(f"the profile of the {kind} load is not whole: {error}", flush=True)
            _, errors = sampling.communicate(timeout=60)
        if not stacks.exists():
            print(f"no profile: {errors[-300:].strip()}", flush=True)
            return
        told = f"{kind} load ({stacks}); shares of samples by function, alone and with what it called:"
        print(f"\n{told}\n{top(stacks.read_text())}", flush=True)


def top(collapsed: str, lines: int = _LINES) -> str:
    """
    The functions that were running most often, and beside that how often they or what they called were.

    *collapsed* is ``a;b;c 12`` by line. Threads other than the main one wait nearly always, and don't count.
    """
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        if not stack or not count.isdigit() or _OTHER_THREAD in stack:
            continue
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        whole.update(dict.fromkeys(frames, int(count)))
    total = own.total()
    return "\n".join(
        f"{100 * count / total:5.1f} %  {100 * whole[name] / total:5.1f} %  {name}"
        for name, count in own.most_common(lines)
    )
