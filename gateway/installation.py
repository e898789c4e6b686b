"""
Which Greenroom this is, among all that may share one Docker engine or one machine: a short id in the data folder.

Whatever Greenroom makes outside of its data folder (containers, images, networks, bridges, firewall rules) carries it,
and nothing without it is ever touched.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from gateway.refusals import Refused

_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Installation:
    """The *id* (8 hexadecimal digits) of one Greenroom and the names made of it."""

    id: str

    @property
    def network(self) -> str:
        """The Docker network of its runs."""
        return f"greenroom-{self.id}"

    @property
    def bridge(self) -> str:
        """The network interface of that network on the machine; at most 15 characters, as Linux wants."""
        return f"gr-{self.id}"

    @property
    def node_bridge(self) -> str:
        """That on each node of a Docker Swarm; not ``bridge``, in whose network images are built."""
        return f"gs-{self.id}"

    @property
    def image_name(self) -> str:
        """The name of its images; the tag is the id of the build."""
        return f"greenroom-{self.id}"

    @property
    def label(self) -> str:
        """The label that its containers, images and networks carry, as ``name=value``."""
        return f"{INSTALLATION_LABEL}={self.id}"


INSTALLATION_LABEL = "greenroom.installation"
RUN_LABEL = "greenroom.run"
BUILD_LABEL = "greenroom.build"


def installation_of(data: Path) -> Installation:
    """The id in ``<data>/installation``, made there at the first call. Raises Refused where it can't be read."""
    path = data / "installation"
    try:
        if not path.exists():
            fresh = path.with_name(f".installation-{os.getpid()}")
            fresh.write_text(secrets.token_hex(4) + "\n")
            try:
                os.link(fresh, path)  # the first one wins, whoever else is at it
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        text = path.read_text().strip()
    except OSError as error:
        raise Refused(f"{path} can't be read or made: {error.strerror}.") from error
    if not _ID.fullmatch(text):
        raise Refused(
            f"{path} holds {text!r}, but 8 hexadecimal digits belong there. Put back what stood there; with another id "
            "Greenroom would not know its containers any more."
        )
    return Installation(text)
