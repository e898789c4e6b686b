"""
No I/O: pieces of Lua that several scripts have in common, and how their arguments are made.

Time is Redis' own, so the clocks of machines never have to agree. Large numbers leave Lua as text of digits: its own
way to print them is 1.7e+12.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

FENCED = "FENCED"
"""What a script's error begins with when a newer leader has been given a token."""

NOW = """
local function now_us()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end
local function now_ms()
    return math.floor(now_us() / 1000)
end
"""
# A token that is empty is of somebody who never led, such as the one process that is all of a Greenroom.
CHECK = f"""
local function is_fenced(fence, token)
    local newest = redis.call('GET', fence)
    return token ~= '' and newest and newest ~= token
end
local FENCED = redis.error_reply('{FENCED} a newer leader has been given a token')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The lease that guards a write, and the token of who writes; None: it never led."""

    lease: str
    token: int | None

    @property
    def words(self) -> str:
        """The token as scripts take it."""
        return "" if self.token is None else str(self.token)


def ms(secs: float) -> int:
    """Redis refuses an expiry of nothing."""
    return max(1, round(secs * 1000))


def flat(pairs: Iterable[tuple[T, U]]) -> list[T | U]:
    """All of them in one list, as scripts take them."""
    return [word for pair in pairs for word in pair]
