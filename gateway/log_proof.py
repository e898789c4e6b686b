"""No I/O: the proof that a request for a part of a log comes from a process that has the same secret key."""

from __future__ import annotations

import hmac
import re

from gateway.secret_box import SecretBox

PROOF_HEADER = "X-Greenroom-Proof"

# Machines whose clocks are a minute apart understand each other; a proof seen on the way is soon worth nothing.
_VALID_SECS = 300
_PROOF = re.compile(r"(\d{1,12}):([0-9a-f]{32})")


def prove(box: SecretBox, target: str, now: float) -> str:
    """The header's value for a request for *target* (path and query), at *now* in seconds since 1970."""
    secs = int(now)
    return f"{secs}:{_secret(box, target, secs)}"


def is_proof(box: SecretBox, target: str, now: float, proof: str) -> bool:
    """Whether *proof* is of this target, of our key, and of about this time; the time it takes tells nothing of it."""
    found = _PROOF.fullmatch(proof)
    if found is None or abs(now - int(found[1])) > _VALID_SECS:
        return False
    return hmac.compare_digest(found[2], _secret(box, target, int(found[1])))


def _secret(box: SecretBox, target: str, secs: int) -> str:
    return box.derive("log service", f"{secs} {target}")
