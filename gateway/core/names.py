"""
No I/O: further host names of an Actor, and which names may be one.

An *alias* is one more label below Greenroom's domain, ``<alias>.<domain>``; a *custom domain* is any other host name,
which routes only once its owner has agreed. Both are kept in lower case, in the ASCII form that DNS has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.core.ids import ID_LENGTH

MAX_NAMES_PER_ACTOR = 50
CHALLENGE_BYTES = 16

PROOF_PATH = "/.well-known/greenroom-verification/"
_PROOF_LABEL = "_greenroom"

# Greenroom's own hosts, and labels that people or programs take for those of whoever runs the domain.
RESERVED_LABELS = frozenset(
    {"api", "console", "runs", "www", "greenroom", "localhost", "admin", "administrator", "root", "login", "auth"}
    | {
        "sso",
        "oauth",
        "account",
        "accounts",
        "status",
        "static",
        "assets",
        "cdn",
        "docs",
        "help",
        "support",
        "security",
    }
    | {
        "mail",
        "smtp",
        "imap",
        "pop",
        "ftp",
        "ns",
        "ns1",
        "ns2",
        "dns",
        "proxy",
        "gateway",
        "events",
        "metrics",
        "health",
    }
    # Looked up by programs that trust what they find there.
    | {"wpad", "isatap", "autoconfig", "autodiscover", "mta-sts"}
)

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LIKE_AN_ID = re.compile(rf"[a-z0-9]{{{ID_LENGTH}}}")
# What URL parsers take for the last part of an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME = 253 - len(_PROOF_LABEL) - 1


class NameKind(StrEnum):
    """The two kinds of further names."""

    ALIAS = "alias"
    DOMAIN = "domain"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorName:
    """
    A further name of an Actor, which belongs to the Actor's owner.

    ``name`` is a label (alias) or a whole host name (domain). It routes while ``verified_at`` is set: an alias always,
    a domain once one of its proofs was found. ``challenge`` is what these have to hold; each claim has its own, since
    several may claim a name until the first of them has proven it. It is no secret once it stands in DNS.
    """

    id: str
    actor_id: str
    user_id: str
    kind: NameKind
    name: str
    challenge: str
    created_at: datetime
    verified_at: datetime | None = None

    @property
    def is_verified(self) -> bool:
        """Whether requests are routed by it."""
        return self.verified_at is not None

    @property
    def proof(self) -> str:
        """What a proof says, in DNS and by HTTP; not to be made of the request, so that no echo can prove anything."""
        return proof_of(self.challenge)

    @property
    def proof_record(self) -> str:
        """Whose TXT record may hold the proof."""
        return f"{_PROOF_LABEL}.{self.name}"

    @property
    def proof_path(self) -> str:
        """The path that may answer with the proof."""
        return PROOF_PATH + self.challenge

    def host(self, domain: str) -> str:
        """The whole host name, where Greenroom's is *domain*."""
        return f"{self.name}.{domain}" if self.kind is NameKind.ALIAS else self.name


def proof_of(challenge: str) -> str:
    """What the proof for *challenge* says."""
    return f"greenroom-verification={challenge}"


def alias_problem(label: str) -> str | None:
    """
    What is wrong with *label* (lower case) as an alias, or None.

    No alias can be what some Actor is called already or may be called later: labels of users and Actors have a ``--``,
    ids have 17 letters and digits. Labels of other alphabets (``xn--…``) can't be of a user, whose names are longer.
    """
    if not _LABEL.fullmatch(label):
        return "an alias has 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
    if label in RESERVED_LABELS:
        return f"'{label}' is reserved for Greenroom itself"
    if "--" in label and not label.startswith("xn--"):
        return "an alias has no '--' in it: that divides user from Actor in host names"
    if _LIKE_AN_ID.fullmatch(label):
        return f"an alias of {ID_LENGTH} letters and digits could be taken for an Actor's id"
    return None


def domain_problem(name: str, domain: str) -> str | None:
    """What is wrong with *name* (lower case, ASCII) as a custom domain of a Greenroom at *domain*, or None."""
    labels = name.split(".")
    if len(name) > _LONGEST_NAME:
        return f"a custom domain has at most {_LONGEST_NAME} characters"
    if "*" in name:
        return "a custom domain is one host name: wildcards are not possible"
    if not all(_LABEL.fullmatch(label) for label in labels):
        return "a host name such as shop.example.com is expected, without scheme, port and path"
    if _NUMBER.fullmatch(labels[-1]):
        return "an IP address can't be a custom domain"
    if name == domain:
        return f"{domain} is Greenroom itself"
    if name.endswith(f".{domain}"):
        return f"names below {domain} are aliases, of one label"
    if labels[-1] == "localhost":
        return "names below localhost mean a different machine to everybody"
    return None
