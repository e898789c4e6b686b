"""No I/O: further names of Actors as the API shows them, with what is to be done in DNS in words."""

from __future__ import annotations

from typing import Any

from gateway.api.host_names import shown
from gateway.core.names import ActorName, NameKind
from gateway.core.times import iso, iso_or_none
from gateway.urls import Urls

View = dict[str, Any]


def name_view(name: ActorName, urls: Urls) -> View:
    """A name as everybody may see it who may see the Actor."""
    host = name.host(urls.domain)
    return {
        "name": name.name,
        "unicodeName": shown(name.name),
        "kind": str(name.kind),
        "status": "verified" if name.is_verified else "pending",
        "url": urls.of_host(host),
        "createdAt": iso(name.created_at),
        "verifiedAt": iso_or_none(name.verified_at),
    }


def owned_name_view(name: ActorName, urls: Urls, proof_url: str) -> View:
    """A name as its owner sees it: with its proofs, either of which will do, and *what to do* in words."""
    view = name_view(name, urls)
    if name.kind is NameKind.DOMAIN:
        view["proofs"] = [
            {"kind": "dns", "type": "TXT", "name": name.proof_record, "value": name.proof},
            {"kind": "http", "url": proof_url, "body": name.proof},
        ]
    view["whatToDo"] = what_to_do(name, urls, proof_url)
    return view


def what_to_do(name: ActorName, urls: Urls, proof_url: str) -> str:
    """What is left to do until requests to *name* arrive."""
    if name.kind is NameKind.ALIAS:
        return f"Nothing: requests to {name.host(urls.domain)} reach the Actor."
    point = (
        f"Point {name.name} to this Greenroom: by a CNAME record with the value {urls.domain}, or where DNS does not "
        "allow one (at the top of a domain) by A and AAAA records with the addresses of that."
    )
    if name.is_verified:
        return f"{name.name} is yours. {point}"
    return (
        f"Show that {name.name} is yours, in one of two ways, and have it verified. Either set a TXT record of the "
        f"name {name.proof_record} with the value {name.proof} in DNS; or have {proof_url} answer {name.proof}, "
        f"which Greenroom does by itself once {name.name} points to it. Until then nobody is served there. {point}"
    )
