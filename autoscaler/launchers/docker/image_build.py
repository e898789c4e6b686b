"""One build of an image in the engine: a long POST on one thread, its output line by line, ended from any other."""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, cast

import requests
from docker.types.daemon import CancellableStream

from autoscaler.launchers.docker.engine import Engine, EngineError, EngineUnavailable, translated
from gateway.core.errors import LaunchError

_TAIL_LINES = 15
_LINE_CHARS = 4000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_STEP = re.compile(r"Step \d+(?:/\d+)? : (\S+)(.*)")


class ImageBuild:
    """
    A build of *context*, the tar, with *parameters* as ``docker.APIClient.build`` has them. Run it once.

    *on_lines* is called with lines of the output, on the thread that runs it. The engine's builder ends what it does,
    and removes its container, when its caller has gone: that is how ``cancel`` works, and what happens when Greenroom
    is killed.
    """

    def __init__(
        self,
        engine: Engine,
        context: IO[bytes],
        parameters: Mapping[str, Any],
        on_lines: Callable[[list[str]], None],
        *,
        timeout_secs: float,
    ) -> None:
        self._engine = engine
        self._context = _Ending(context, self._check)
        self._parameters = parameters
        self._on_lines = on_lines
        self._timeout_secs = timeout_secs
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._response: requests.Response | None = None
        self._step = ""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def run(self) -> None:
        """Until it has ended. Raises LaunchError: which step failed and the last lines, or the engine is gone."""
        client = self._engine.connect(timeout_secs=self._timeout_secs)
        # The only way to have the answer itself, and with it its socket, of a call that the library makes.
        client.hooks["response"].append(self._take)
        try:
            with translated(self._engine.url):
                output = client.build(
                    fileobj=cast("IO[bytes]", self._context),
                    custom_context=True,
                    decode=True,
                    timeout=math.ceil(self._timeout_secs),
                    **self._parameters,
                )
                self._follow(output)
        except EngineError as error:
            self._check()  # what is cancelled breaks in one way or the other
            problem = error.message.removeprefix("Docker: ")
            raise LaunchError(f"The image could not be built: {problem}.") from error
        except LaunchError:
            self._check()
            raise
        finally:
            with self._lock:
                self._response = None
            client.close()

    def cancel(self) -> None:
        """End it, from any thread, at any time."""
        with self._lock:
            self._is_cancelled = True
            if self._response is not None:
                _shut_down(self._response)

    def _take(self, response: requests.Response, *_: object, **__: object) -> None:
        with self._lock:
            self._response = response
            if self._is_cancelled:
                _shut_down(response)

    def _check(self) -> None:
        if self._is_cancelled:
            raise LaunchError("The build of the image was ended.")

    def _follow(self, output: Iterator[Mapping[str, Any]]) -> None:
        rest = ""
        for item in output:
            if "error" in item:
                self._tell([rest])
                self._check()
                raise self._failed(str(item["error"]))
            if "stream" in item:
                *lines, rest = (rest + str(item["stream"])).replace("\r", "\n").split("\n")
                self._tell(lines)
            elif "status" in item and not item.get("progressDetail"):
                self._tell([f"{item['id']}: {item['status']}" if item.get("id") else str(item["status"])])
        self._tell([rest])
        self._check()

    def _tell(self, lines: list[str]) -> None:
        shown = [clean for line in lines if (clean := _ANSI.sub("", line).rstrip()[:_LINE_CHARS])]
        for line in shown:
            if _STEP.fullmatch(line):
                self._step = line
                self._tail.clear()
            else:
                self._tail.append(line)
        if shown:
            self._on_lines(shown)

    def _failed(self, problem: str) -> LaunchError:
        problem = problem.strip().rstrip(".")
        step = _STEP.fullmatch(self._step)
        if step is None:
            return LaunchError(f"The image could not be built: {problem}.")
        if step.group(1).upper() == "FROM":
            name = next((word for word in step.group(2).split() if not word.startswith("--")), "?")
            return LaunchError(
                f"{self._step} failed: there is no such image {name} in the engine, and it could not be pulled "
                f"({problem}). Pull it or make it there, or begin the Dockerfile with another one."
            )
        return LaunchError("\n".join([f"{self._step} failed: {problem}.", *self._tail]))


class _Ending:
    """The context as the library reads it: in pieces, and no further once the build is to end."""

    def __init__(self, file: IO[bytes], check: Callable[[], None]) -> None:
        self._file = file
        self._check = check

    def read(self, size: int = -1) -> bytes:
        self._check()
        return self._file.read(size)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(64 * 1024):
            yield piece

    def close(self) -> None:
        """The library closes what it was given; whoever made it does, too."""
        self._file.close()


def _shut_down(response: requests.Response) -> None:
    with contextlib.suppress(Exception):  # it may be ending by itself at this very moment
        CancellableStream(iter(()), response).close()


def broken_off(url: str) -> EngineUnavailable:
    """The output has ended, and there is no image."""
    return EngineUnavailable(f"The Docker engine at {url} broke off the build of the image: build again.")
