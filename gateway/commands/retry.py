"""``greenroom retry``: have an Actor tried again whose runs have failed too often, through a running Greenroom."""

from __future__ import annotations

from urllib.parse import quote

from gateway.commands.api_verbs import Api


def run(api: Api, actor: str) -> int:
    """Print what is tried again with the next request. Raises Refused."""
    # "jane/hello" is how other verbs print an Actor, "jane~hello" how the API takes it.
    path = f"greenroom/actors/{quote(actor.replace('/', '~'), safe='~')}/retry"
    quarantines = api.call("POST", path)["items"]
    if not quarantines:
        print(f"{actor} was not in quarantine: the next request starts a run, if one is needed.")
    for quarantine in quarantines:
        print(f"{quarantine['poolId']} is tried again with the next request. Before: {quarantine['message']}")
    return 0
