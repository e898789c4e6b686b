"""A small web server that gives files, redirects, git repositories and bad answers, and counts who comes."""

from __future__ import annotations

import http.server
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class SourceServer:
    """Serves *root* on 127.0.0.1; below ``/git/`` its repositories by git's own program."""

    root: Path
    redirects: dict[str, str] = field(default_factory=dict)
    port: int = 0
    requests: list[str] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"


@contextmanager
def serving(root: Path) -> Iterator[SourceServer]:
    """A server, until it is left."""
    served = SourceServer(root)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            served.logins.append(self.headers.get("Authorization"))
            path = self.path.partition("?")[0]
            if path in served.redirects:
                self.send_response(302)
                self.send_header("Location", served.redirects[path])
                self.end_headers()
            elif path.startswith("/git/"):
                self._git()
            elif (file := served.root / path[1:]).is_file():
                self._answer(200, file.read_bytes())
            else:
                self._answer(404, b"")

        do_POST = do_GET  # noqa: N815 - the library's names

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _git(self) -> None:
            path, _, query = self.path.removeprefix("/git").partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(
                ["git", "http-backend"],
                input=body,
                capture_output=True,
                check=True,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(served.root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
            ).stdout
            head, _, content = done.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def git(folder: Path, *words: str) -> str:
    """What git says there, as nobody in particular."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": f"{what}@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(root: Path, name: str, files: Mapping[str, str]) -> Path:
    """A bare repository ``<name>.git`` below *root* with one commit of *files* on main; its work tree is beside it."""
    work = root / name
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    commit(work, files)
    git(root, "clone", "--quiet", "--bare", str(work), f"{name}.git")
    git(root / f"{name}.git", "update-server-info")
    git(work, "remote", "add", "origin", str(root / f"{name}.git"))
    return work


def commit(work: Path, files: Mapping[str, str]) -> str:
    """One more commit; its id."""
    for path, content in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(content)
    git(work, "add", "--all", "--force")
    git(work, "commit", "--quiet", "--message", "a commit")
    return git(work, "rev-parse", "HEAD")
