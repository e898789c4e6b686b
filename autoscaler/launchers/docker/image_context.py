"""
What the engine builds an image from: a tar of the build's source with its Dockerfile, on disk where it is large.

A Dockerfile inside of the context is used where it lies, as Docker does, also where ``.dockerignore`` leaves it out.
One from elsewhere, or a built-in one, goes along under a name of Greenroom's, and stays out of the image.
"""

from __future__ import annotations

import io
import posixpath
import re
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from autoscaler.launchers.docker.default_dockerfile import default_dockerfile
from autoscaler.launchers.docker.dockerignore import DockerIgnore
from gateway.actor_files.definition import ACTOR_FILE, LEGACY_FILE, find_file, parse_definition
from gateway.actor_files.snapshot import Archive, open_archive
from gateway.core.errors import DefinitionError

PATH_ARGUMENT = "ACTOR_PATH_IN_DOCKER_CONTEXT"

_IGNORE_FILE = ".dockerignore"
_OWN_DOCKERFILE = ".greenroom.Dockerfile"
_SPOOL_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ImageContext:
    """
    A *file* with the plain tar, at its beginning; ``dockerfile`` is the name in it, ``text`` what stands there.

    ``actor_path``: where the Actor's own folder is, as seen from the context's top. ``is_default``: there was none.
    """

    file: IO[bytes]
    dockerfile: str
    text: str
    actor_path: str
    is_default: bool


def image_context(archive: IO[bytes], *, node_image: str, python_image: str) -> ImageContext:
    """
    The context of the snapshot *archive*; blocks. Whoever calls closes its file.

    Raises DefinitionError: no such context folder, or neither a Dockerfile nor anything to make one for.
    """
    with open_archive(archive) as files:
        definition = parse_definition(files, default_name="actor")
        folder = _context_folder(files, definition.resolved)
        inside = _Inside(files, folder)
        extra: dict[str, bytes] = {}
        given = definition.dockerfile_name
        if given is not None:
            text = str(definition.resolved["dockerfile"])
        else:
            default = default_dockerfile(definition.resolved, files, node_image=node_image, python_image=python_image)
            inside = _Inside(files, "")
            text = default.text
            extra = {name: content.encode() for name, content in default.extra_files.items()}
        name = inside.name_of(given) if given is not None else None
        ignore = inside.text(_IGNORE_FILE)
        if name is None:
            name = _OWN_DOCKERFILE
            extra[name] = text.encode()
            extra[_IGNORE_FILE] = f"{ignore}\n{_IGNORE_FILE}\n{name}\n".encode()
        return ImageContext(
            file=_packed(inside, DockerIgnore(ignore), {name, _IGNORE_FILE}, extra),
            dockerfile=name,
            text=text,
            actor_path=posixpath.relpath(".", inside.folder or "."),
            is_default=given is None,
        )


def build_arguments(context: ImageContext, variables: Mapping[str, str]) -> dict[str, str]:
    """Those of *variables*, and of what Greenroom gives, that the Dockerfile speaks of; others the engine warns of."""
    given = {PATH_ARGUMENT: context.actor_path, **variables}
    return {name: value for name, value in given.items() if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", context.text)}


def _context_folder(files: Archive, definition: Mapping[str, Any]) -> str:
    """The folder of the context, "" for the whole source."""
    given = definition.get("dockerContextDir")
    if given is None:
        return ""
    file = find_file(files, ACTOR_FILE) or find_file(files, LEGACY_FILE) or ACTOR_FILE
    folder = posixpath.normpath(posixpath.join(posixpath.dirname(file), str(given)))
    if folder.startswith(("../", "/")) or folder == "..":
        raise DefinitionError(
            file, None, f"dockerContextDir: a folder of the Actor's source is expected; {given} lies outside of it"
        )
    if folder == ".":
        return ""
    if not any(name.startswith(f"{folder}/") for name in files):
        raise DefinitionError(file, None, f"dockerContextDir: the folder {folder} is expected, but it is missing")
    return folder


class _Inside:
    """The files of a source that lie in *folder*, by their names there."""

    def __init__(self, files: Archive, folder: str) -> None:
        self.files = files
        self.folder = folder
        self._prefix = f"{folder}/" if folder else ""

    def name_of(self, name: str) -> str | None:
        """The name in the folder of *name*, a file of the source; None where it lies elsewhere."""
        return name[len(self._prefix) :] if name.startswith(self._prefix) else None

    def text(self, name: str) -> str:
        """The content of a file of the folder; "" where there is none."""
        path = self._prefix + name
        return self.files[path].decode("utf-8-sig", "replace") if path in self.files else ""


def _packed(inside: _Inside, ignore: DockerIgnore, kept: set[str], extra: Mapping[str, bytes]) -> IO[bytes]:
    packed = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in inside.files:
                name = inside.name_of(path)
                if name is None or name in extra or (name not in kept and ignore.leaves_out(name)):
                    continue
                with inside.files.opened(path) as (member, content):
                    info = tarfile.TarInfo(name)
                    info.size, info.mode = member.size, member.mode
                    tar.addfile(info, content)
            for name, data in extra.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        packed.seek(0)
    except BaseException:
        packed.close()
        raise
    return packed
