"""The rules of the house, read from the syntax tree: which room may import which, and what `No I/O:` means."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gateway", "autoscaler")
LONGEST_MODULE_LINES = 500

IMPURE = frozenset(
    {"asyncio", "socket", "time", "random", "os", "redis", "sqlalchemy", "httptools", "starlette", "uvicorn"}
    # The same in other words.
    | {"secrets", "uuid", "subprocess", "threading", "select", "selectors", "signal", "tempfile", "shutil", "httpx"}
)
CLOCKS = frozenset({"now", "utcnow", "today"})
DRIVERS = frozenset({"sqlalchemy", "alembic", "obstore", "aiosqlite", "redis", "psycopg"})
# The supervisor, the keepers that it gives its runs to, and what it has made ahead.
SUPERVISOR = (
    *("autoscaler.supervisor", "autoscaler.keeper", "autoscaler.launch", "autoscaler.ahead"),
    *("autoscaler.run_readiness", "autoscaler.run_freezing"),
    # Where all of them are composed.
    "autoscaler.acting",
)
# What is the gateway's own; all else in its package is for both.
ROOMS = (
    *("proxy", "api", "app", "events", "services", "opening", "presence"),
    *("worker", "parent", "cli", "commands", "autoscaler_process"),
)
# Where the whole is composed: these may import the other package, inside their functions only.
COMPOSITION = frozenset({"gateway.cli", "gateway.worker", "gateway.autoscaler_process"})


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, and whether the import stands inside of a function."""

    module: str
    line: int
    in_function: bool


@dataclass(frozen=True, slots=True)
class Module:
    """A module with its source."""

    name: str
    source: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.source)


def imports(module: Module) -> Iterator[Import]:
    """Everything that *module* imports, at any depth; ``from a import b`` counts as ``a`` and as ``a.b``."""

    def walk(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.name.split(".")
                kept = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
                base = ".".join([*kept, base] if base else kept)
            yield Import(base, node.lineno, in_function)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, in_function)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(module.tree, False)


def is_in(name: str, *rooms: str) -> bool:
    """Whether the module *name* is one of *rooms* or below one."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def wrong_arrows(module: Module) -> list[str]:
    """The imports of *module* that break a rule, each with the rule."""
    wrong = []
    for found in imports(module):
        for rule, holds in _rules(module.name, found):
            if not holds:
                wrong.append(f"{module.name}:{found.line} imports {found.module}: {rule}")
    return wrong


def _rules(importer: str, found: Import) -> Iterator[tuple[str, bool]]:
    imported = found.module
    may_compose = importer in COMPOSITION and found.in_function
    if is_in(importer, "gateway"):
        yield "the gateway doesn't know the autoscaler", not is_in(imported, "autoscaler") or may_compose
    if is_in(importer, "gateway.proxy"):
        yield "proxy and api don't know each other", not is_in(imported, "gateway.api")
    if is_in(importer, "gateway.api"):
        yield "proxy and api don't know each other", not is_in(imported, "gateway.proxy")
    if is_in(importer, "gateway.core"):
        yield (
            "core imports core and the standard library",
            imported == "gateway"
            or is_in(imported, "gateway.core")
            or imported.partition(".")[0] in sys.stdlib_module_names,
        )
    if is_in(importer, "autoscaler"):
        yield (
            "the autoscaler doesn't know the gateway's rooms",
            not is_in(imported, *(f"gateway.{room}" for room in ROOMS)),
        )
    if not is_in(importer, "gateway.state"):
        yield "only the adapters in gateway/state import drivers", imported.partition(".")[0] not in DRIVERS
    if not is_in(importer, "autoscaler.launchers", *SUPERVISOR):
        yield "only the supervisor knows launchers", not is_in(imported, "autoscaler.launchers") or may_compose


def impurities(module: Module) -> list[str]:
    """What a module that begins with ``No I/O:`` has and may not have; nothing for all other modules."""
    tree = module.tree
    if not (ast.get_docstring(tree) or "").startswith("No I/O:"):
        return []
    wrong = [
        f"{module.name}:{node.lineno} is async"
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    wrong += [
        f"{module.name}:{found.line} imports {found.module}"
        for found in imports(module)
        if found.module.partition(".")[0] in IMPURE
    ]
    wrong += [
        f"{module.name}:{node.lineno} asks the clock"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in CLOCKS
        and isinstance(node.value, ast.Name)
        and node.value.id in ("datetime", "date")
    ]
    return wrong


def _read(paths: Iterable[Path]) -> list[Module]:
    modules = []
    for path in sorted(paths):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, path.read_text(), is_package))
    return modules


MODULES = _read(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_arrows():
    """Imports point where the design says, and nowhere else."""
    assert [wrong for module in MODULES for wrong in wrong_arrows(module)] == []


def test_purity():
    """What says that it does no I/O does none, knows no clock and rolls no dice."""
    assert [wrong for module in MODULES for wrong in impurities(module)] == []


def test_packages_are_empty():
    """Names are imported from where they are defined."""
    assert [module.name for module in MODULES if module.is_package and module.source.strip()] == []


def test_modules_have_one_subject():
    """Past 500 lines a module has a second subject."""
    long = {module.name: lines for module in MODULES if (lines := module.source.count("\n")) > LONGEST_MODULE_LINES}
    assert long == {}


def test_there_is_something_to_check():
    """The tests above look at the real packages, marked modules among them."""
    names = {module.name for module in MODULES}
    assert {"gateway.core.model", "autoscaler.launchers.base", "gateway.state.ports"} <= names
    pure = [module for module in MODULES if (ast.get_docstring(module.tree) or "").startswith("No I/O:")]
    assert len(pure) >= 5


@pytest.mark.parametrize(
    ("name", "source", "rule"),
    [
        pytest.param("gateway.app", "import autoscaler.loop", "doesn't know the autoscaler", id="gateway, autoscaler"),
        pytest.param("gateway.cli", "from autoscaler import loop", "doesn't know", id="at the top of cli"),
        pytest.param("gateway.app", "def f():\n    import autoscaler", "doesn't know", id="in another's function"),
        pytest.param("gateway.proxy.http", "from gateway.api import runs", "each other", id="proxy, api"),
        pytest.param("gateway.api.runs", "from gateway import proxy", "each other", id="api, proxy"),
        pytest.param("gateway.api.runs", "from ..proxy import http", "each other", id="relative"),
        pytest.param("gateway.api", "from .. import proxy", "each other", id="relative, no module"),
        pytest.param("gateway.core.model", "from gateway import settings", "core imports core", id="core"),
        pytest.param("gateway.core.model", "import pydantic", "core imports core", id="core, third party"),
        pytest.param("gateway.builds", "import sqlalchemy.sql as s", "drivers", id="driver"),
        pytest.param("autoscaler.loop", "def f():\n    from aiosqlite import x", "drivers", id="driver, hidden"),
        pytest.param("autoscaler.loop", "from autoscaler.launchers.base import Launcher", "launchers", id="launchers"),
        pytest.param("autoscaler.loop", "from gateway.proxy import http", "gateway's rooms", id="autoscaler, proxy"),
        pytest.param("autoscaler.loop", "from gateway import events", "gateway's rooms", id="autoscaler, events"),
    ],
)
def test_wrong_arrows_are_found(name, source, rule):
    """The check of arrows can fail."""
    found = wrong_arrows(Module(name, source, is_package=name == "gateway.api"))
    assert found
    assert all(rule in wrong for wrong in found)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        pytest.param("gateway.worker", "def main():\n    from autoscaler.loop import run", id="composition"),
        pytest.param("autoscaler.supervisor", "from autoscaler.launchers.base import Launcher", id="supervisor"),
        pytest.param("gateway.state.records", "import sqlalchemy", id="adapter"),
        pytest.param("autoscaler.loop", "from gateway.state.ports import State", id="ports"),
        pytest.param("gateway.api_client", "from gateway import proxy", id="a name that only begins alike"),
    ],
)
def test_right_arrows_pass(name, source):
    """The check of arrows does not cry wolf."""
    assert wrong_arrows(Module(name, source)) == []


@pytest.mark.parametrize(
    "body",
    [
        "import asyncio",
        "from time import monotonic",
        "async def f(): ...",
        "import os.path",
        "def f():\n    import os",
        "from secrets import token_hex",
        "from datetime import datetime\nat = datetime.now()",
    ],
)
def test_impurities_are_found(body):
    """The check of purity can fail, and speaks only to modules that are marked."""
    assert impurities(Module("m", f'"""No I/O: a thing."""\n{body}\n'))
    assert impurities(Module("m", f'"""A thing."""\n{body}\n')) == []
