"""``greenroom names``: an Actor's aliases and custom domains, through the API of a running Greenroom."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote

from gateway.commands.api_verbs import Api
from gateway.refusals import USAGE, Refused


def run(api: Api, actor: str, action: str | None, name: str | None) -> int:
    """Perform *action* on *name*, or list all names where there is none. Raises Refused."""
    # "jane/hello" is how other verbs print an Actor, "jane~hello" how the API takes it.
    path = f"greenroom/actors/{quote(actor.replace('/', '~'), safe='~')}/names"
    if action is None:
        return _print_names(api.call("GET", path)["items"])
    if name is None:
        raise Refused(f"names {actor} {action}: a name is expected after '{action}'.", exit_code=USAGE)
    one = f"{path}/{quote(name, safe='')}"
    match action:
        case "add":
            _print_name(api.call("POST", path, json={"name": name}))
        case "verify":
            _print_name(api.call("POST", f"{one}/verify"))
        case _:
            api.call("DELETE", one)
            print(f"greenroom: {name} is removed.", file=sys.stderr)
    return 0


def _print_names(names: list[dict[str, Any]]) -> int:
    if not names:
        print("greenroom: this Actor has no further names.", file=sys.stderr)
        return 0
    width = max(len(name["url"]) for name in names)
    for name in names:
        print(f"{name['url']:<{width}}  {name['kind']:<6}  {name['status']}")
    for name in names:
        if name["status"] == "pending":
            print(f"\n{name['whatToDo']}", file=sys.stderr)
    return 0


def _print_name(name: dict[str, Any]) -> None:
    print(f"{name['url']}  {name['kind']}  {name['status']}")
    if name["kind"] == "domain":
        print(name["whatToDo"], file=sys.stderr)
