"""
No I/O: the command that a container of a Dockerfile's final stage would start.

Only CMD and ENTRYPOINT count, with Docker's rules for their forms and for how they combine; SHELL is ignored, since the
process that Greenroom starts has only ``sh``. Source: the Dockerfile reference, "Understand how CMD and ENTRYPOINT
interact".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway.core.errors import DefinitionError

_HEREDOC = re.compile(r"(?:^|(?<=\s))\d*<<-?([\"']?)([A-Za-z_][A-Za-z0-9_]*)\1")
_ESCAPE = re.compile(r"#\s*escape\s*=\s*(\S)\s*", re.IGNORECASE)
_DIRECTIVE = re.compile(r"#\s*\w+\s*=")
_FROM = re.compile(r"(?:--\S+\s+)*(\S+)(?:\s+as\s+(\S+))?", re.IGNORECASE)

# Init processes: they come with an image, not with an Actor, and a run of ours has its shim in their place.
_INITS = frozenset({"tini", "dumb-init"})


@dataclass(frozen=True, slots=True)
class _Command:
    """CMD or ENTRYPOINT: *argv* to start as it is, or, with ``is_shell``, one text for ``sh -c``."""

    argv: tuple[str, ...]
    is_shell: bool

    def started(self) -> tuple[str, ...]:
        return ("sh", "-c", *self.argv) if self.is_shell else self.argv


@dataclass(frozen=True, slots=True)
class _Stage:
    entrypoint: _Command | None = None
    cmd: _Command | None = None
    has_own_cmd: bool = False


@dataclass(frozen=True, slots=True)
class _Instruction:
    line: int
    word: str
    rest: str


def container_command(file: str, text: str) -> tuple[str, ...] | None:
    """The final stage's command, or None where it leaves that to its base image; DefinitionError names *file*."""
    stages: dict[str, _Stage] = {}
    stage, name = _Stage(), None
    for instruction in _instructions(file, text):
        if instruction.word == "FROM":
            match = _FROM.match(instruction.rest)
            base, name = match.groups() if match else ("", None)
            stage = replace(stages.get(base.lower(), _Stage()), has_own_cmd=False)
        elif instruction.word == "CMD":
            stage = replace(stage, cmd=_command(file, instruction), has_own_cmd=True)
        elif instruction.word == "ENTRYPOINT":
            # As in Docker, an ENTRYPOINT makes a CMD that was only inherited void.
            cmd = stage.cmd if stage.has_own_cmd else None
            stage = replace(stage, entrypoint=_command(file, instruction), cmd=cmd)
        if name is not None:
            stages[name.lower()] = stage
    return _combined(stage) or None


def _combined(stage: _Stage) -> tuple[str, ...]:
    entrypoint = stage.entrypoint
    if entrypoint is not None and entrypoint.is_shell:
        return entrypoint.started()  # its CMD is ignored
    argv = (entrypoint.argv if entrypoint else ()) + (stage.cmd.started() if stage.cmd else ())
    if argv and argv[0].rsplit("/", 1)[-1] in _INITS:
        rest = list(argv[1:])
        while rest and rest[0].startswith("-"):
            rest.pop(0)
        return tuple(rest)
    return argv


def _command(file: str, instruction: _Instruction) -> _Command:
    rest = instruction.rest
    if _HEREDOC.match(rest):
        raise DefinitionError(file, instruction.line, f"{instruction.word} as a here-document is not supported")
    if rest.startswith("["):
        try:
            argv = json.loads(rest)
        except ValueError:
            argv = None
        if isinstance(argv, list) and all(isinstance(item, str) for item in argv):
            return _Command(tuple(argv), is_shell=False)
        if rest.endswith("]"):  # Docker would hand this to a shell, which can only fail on it
            raise DefinitionError(
                file,
                instruction.line,
                f'{instruction.word}: an array of texts in double quotes is expected, as ["a", "b"]',
            )
    return _Command((rest,) if rest else (), is_shell=bool(rest))


def _instructions(file: str, text: str) -> Iterator[_Instruction]:
    """The instructions with their first line's number; comments, continuations and here-documents are taken in."""
    lines = text.splitlines()
    escape = _escape_character(lines)
    at = 0
    while at < len(lines):
        first = at
        parts: list[str] = []
        while at < len(lines):
            line = lines[at].rstrip()
            at += 1
            if line.lstrip().startswith("#") or (not line and parts):
                continue  # also between continued lines
            if line.endswith(escape):
                parts.append(line[:-1])
                continue
            parts.append(line)
            break
        word, *tail = "".join(parts).split(None, 1) or [""]
        if not word:
            continue
        word, rest = word.upper(), "".join(tail)
        if word in ("RUN", "COPY", "ADD"):
            for match in _HEREDOC.finditer(rest):
                at = _after_heredoc(file, lines, at, match.group(2), first + 1)
        yield _Instruction(line=first + 1, word=word, rest=rest.strip())


def _after_heredoc(file: str, lines: list[str], at: int, word: str, opened_on: int) -> int:
    for end in range(at, len(lines)):
        if lines[end].strip() == word:
            return end + 1
    raise DefinitionError(file, opened_on, f"a line {word} is expected to end this here-document")


def _escape_character(lines: list[str]) -> str:
    """The backslash, unless a parser directive at the very top names another one."""
    for line in lines:
        if match := _ESCAPE.fullmatch(line.strip()):
            return match.group(1)
        if not _DIRECTIVE.match(line.strip()):
            break
    return "\\"
