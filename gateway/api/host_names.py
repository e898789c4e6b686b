"""No I/O: a host name as people write it becomes the one that DNS has, and an alias or a custom domain."""

from __future__ import annotations

import idna

from gateway.api.fields import refuse
from gateway.core.errors import InvalidRequest
from gateway.core.names import NameKind, alias_problem, domain_problem

_MAX_CHARS = 1000


def canonical(text: str) -> str:
    """
    *text* in lower case, in ASCII, without the dot at its end: ``Bücher.Example.`` is ``xn--bcher-kva.example``.

    Raises InvalidRequest where other alphabets are not used as IDNA allows. What is in ASCII anyway is not judged here.
    """
    text = text.strip().removesuffix(".")
    if len(text) > _MAX_CHARS:
        raise refuse("name", "a host name")
    labels = text.lower().split(".")
    # IDNA's rules are for other alphabets: they refuse hyphens that plain host names have.
    if text.isascii() and not any(label.startswith("xn--") for label in labels):
        return text.lower()
    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii").removesuffix(".")
    except UnicodeError as error:
        raise InvalidRequest(f"name: {text!r} is no host name ({error}).", data={"field": "name"}) from error


def shown(name: str) -> str:
    """*name* (canonical) in its own alphabet."""
    if "xn--" not in name:
        return name
    try:
        return idna.decode(name)
    except UnicodeError:  # stored under other rules of IDNA
        return name


def checked_name(text: str, domain: str) -> tuple[NameKind, str]:
    """
    The alias or custom domain that *text* names at a Greenroom of *domain*. Raises InvalidRequest.

    ``shop`` and ``shop.<domain>`` are the same alias.
    """
    name = canonical(text)
    label = name.removesuffix(f".{domain}")
    if "." not in label:
        kind, name, problem = NameKind.ALIAS, label, alias_problem(label)
    else:
        kind, problem = NameKind.DOMAIN, domain_problem(name, domain)
    if problem is not None:
        raise InvalidRequest(f"name: {problem}.", data={"field": "name"})
    return kind, name
