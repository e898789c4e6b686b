"""
What quickstart.sh shows: Greenroom with the example Actors, and a first call that wakes one of them.

Standard library only. What is called of the examples on the SDKs stands in ``sdk_examples``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import sdk_examples
from calls import Api, Failed, call

LABEL = "local--hello"
READY_SECS = 60.0
STOP_SECS = 60.0
RECORD_SECS = 10.0

GREENROOM = [sys.executable, "-m", "gateway.cli"]


def usual_data_dir() -> Path:
    """The data folder of whoever runs this, as his settings say. Ends where they are mistaken: it has told why."""
    shown = subprocess.run([*GREENROOM, "config"], stdout=subprocess.PIPE, text=True)
    if shown.returncode:
        raise SystemExit(shown.returncode)
    return Path(next(re.split("  +", line)[1] for line in shown.stdout.splitlines() if line.startswith("data ")))


def usual_token(data: Path) -> str | None:
    """The administrator's token, where it is told or lies in the data folder."""
    given = os.environ.get("GREENROOM_TOKEN")
    with contextlib.suppress(OSError):
        return given or (data / "token").read_text().strip()
    return None


@contextlib.contextmanager
def greenroom(*flags: str, is_check: bool) -> Iterator[subprocess.Popen[bytes]]:
    """``greenroom serve`` with the examples; told to stop at the end, if it has not been."""
    folders, left_out = sdk_examples.servable()
    if left_out is not None:
        print(left_out, flush=True)
    command = [*GREENROOM, "serve", *(word for folder in folders for word in ("--actors", str(folder))), *flags]
    variables = dict(os.environ)
    if is_check:
        # A check is about this checkout, not about the settings of whoever runs it.
        variables = {name: value for name, value in variables.items() if not name.startswith("GREENROOM_")}
        variables["GREENROOM_CONFIG"] = os.devnull
    if "GREENROOM_LOG_LEVEL" not in variables:
        # What is shown here is to be read; each request's log line would stand between.
        command += ["--set", "log_level=warning"]
    process = subprocess.Popen(command, env=variables)
    try:
        yield process
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            stop(process)
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask it to drain and stop; its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return process.wait(STOP_SECS)


def wait_until_ready(process: subprocess.Popen[bytes], data: Path) -> int:
    """Until *process*, and not another one at the same port, serves: the port on which it does."""
    until = time.monotonic() + READY_SECS
    while time.monotonic() < until:
        if process.poll() is not None:
            # It has told why, in one line.
            raise SystemExit(process.returncode or 1)
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            pid, url = (data / "lock").read_text().splitlines()
            port = int(url.rpartition(":")[2])
            if int(pid) == process.pid and call(port, "127.0.0.1", "/health/ready", timeout_secs=5).status == 200:
                return port
        time.sleep(0.05)
    raise Failed(f"Greenroom did not serve within {READY_SECS:.0f} s.")


def show_first_calls(port: int) -> str:
    """Wake the hello Actor, call it again, and tell what happened; the id of the run that answered."""
    host = f"{LABEL}.localhost:{port}"
    print(f"\nCalling http://{host}/ ...\n", flush=True)
    cold = call(port, host, "/")
    run_id = cold.run_id
    warm = min((call(port, host, "/") for _ in range(3)), key=lambda answer: answer.took_ms)
    if warm.run_id != run_id:
        raise Failed(f"run {run_id} was expected to answer again, but {warm.run_id} did.")
    started_ms = sum(cold.phases_ms.get(phase, 0) for phase in ("start", "ready"))
    if started_ms:
        print("  asleep      no run of hello was there")
        print(f"  started     in {started_ms:.0f} ms, while the request was held (run {run_id})")
    else:
        print(f"  awake       run {run_id} was there already")
    print(f"  answered    {cold.body.strip()!r}, after {cold.took_ms:.0f} ms")
    print(f"  warm        the next request took {warm.took_ms:.1f} ms\n", flush=True)
    return run_id


def check(process: subprocess.Popen[bytes], port: int, data: Path) -> None:
    """The rest of what ``--check`` looks at. Raises Failed."""
    run_id = show_first_calls(port)
    answer = call(port, f"{LABEL}.localhost:{port}", "/some/path?a=1")
    if not answer.body.rstrip().endswith("/some/path?a=1"):
        raise Failed(f"the Actor was expected to see the path as it was asked for, not: {answer.body}")
    by_path = call(port, f"127.0.0.1:{port}", f"/standby/{LABEL}/below")
    if by_path.run_id != run_id or not by_path.body.rstrip().endswith("/below"):
        raise Failed(f"the path form was expected to reach the same run without its prefix, not: {by_path.body}")
    api = Api(port, (data / "token").read_text().strip())
    # The record follows the first answer, which has no time to wait for it.
    until = time.monotonic() + RECORD_SECS
    while (status := api.value(f"/actor-runs/{run_id}")["status"]) != "RUNNING":
        if time.monotonic() > until:
            raise Failed(f"the API was expected to know the run as RUNNING, not as {status}.")
        time.sleep(0.1)
    unknown = call(port, f"nobody--nothing.localhost:{port}", "/")
    if unknown.status != 404:
        raise Failed(f"an unknown host was expected to get 404, not {unknown.status}.")
    print("Checking the examples on the SDKs; the first time their packages are installed ...", flush=True)
    sdk_examples.check(api)
    code = stop(process)
    if code != 0:
        raise Failed(f"Greenroom was expected to stop with exit code 0, not {code}.")


def main() -> int:
    """The exit code: 0 where all went as it should."""
    parser = argparse.ArgumentParser(prog="sh deploy/quickstart.sh", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="take a free port, check the answers and stop")
    parser.add_argument("--port", type=int, help="port to serve on (8010; with --check: a free one)")
    arguments = parser.parse_args()
    if arguments.port == 0 and not arguments.check:
        parser.error("--port: a port is expected that you can open in a browser; 0 is for --check alone.")
    try:
        if arguments.check:
            with tempfile.TemporaryDirectory(prefix="greenroom-check-") as folder:
                data = Path(folder) / "data"
                with greenroom("--data", str(data), "--port", str(arguments.port or 0), is_check=True) as process:
                    check(process, wait_until_ready(process, data), data)
            print("quickstart: all as it should be.")
            return 0
        data = usual_data_dir()
        with greenroom(*([] if arguments.port is None else ["--port", str(arguments.port)]), is_check=False) as process:
            port = wait_until_ready(process, data)
            show_first_calls(port)
            print(
                f"Open http://{LABEL}.localhost:{port}/ and http://local--fastapi-live.localhost:{port}/ in a browser."
            )
            sdk_examples.show(port, usual_token(data), lambda line: print(line, flush=True))
            print("\nGreenroom stays up; Ctrl-C stops it.\n", flush=True)
            return _wait(process)
    except (Failed, OSError, http.client.HTTPException) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Until it ends. Ctrl-C reaches it too, by the terminal: it drains, and is waited for."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main())
