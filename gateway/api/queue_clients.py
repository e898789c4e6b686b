"""Who works on a queue: the client as it names itself, and the owner of the locks that it takes."""

from __future__ import annotations

from gateway.api.call import Call
from gateway.api.fields import refuse

_MAX_CHARS = 100


def client_key(call: Call) -> str | None:
    """``clientKey``, None where the client sends none. Raises InvalidRequest."""
    key = call.query.text("clientKey")
    if key is not None and len(key) > _MAX_CHARS:
        raise refuse("clientKey", f"at most {_MAX_CHARS} characters long")
    return key


def lock_owner(call: Call) -> str:
    """
    Whose locks the call takes, prolongs and drops: those of the run of its token together with the client key, or
    with the token where the client has no key. Two runs that send the same key don't get at each other's locks.
    """
    return f"{call.principal.run_id or ''}/{client_key(call) or call.principal.token_id}"
