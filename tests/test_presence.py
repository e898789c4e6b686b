"""Processes announce themselves, and those with different secret keys don't come together."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway.presence import Presence, key_print, refuse_another_key
from gateway.refusals import Refused
from gateway.secret_box import SecretBox
from gateway.state.signals_memory import MemorySignals


async def told(signals: MemorySignals, facts: dict[str, str] | None) -> None:
    """Until the one gateway is announced with *facts*, or (None) no more."""
    wanted = [] if facts is None else [facts]
    async with asyncio.timeout(10):
        while list((await signals.announced("gateway")).values()) != wanted:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)


async def test_a_process_is_there_as_long_as_it_keeps_its_presence() -> None:
    """Announced at once, anew when its facts change, and withdrawn in the end."""
    signals, facts = MemorySignals(), {"leads": "0"}
    presence = Presence(signals, "gateway", "g1", lambda: dict(facts))
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(presence.keep())
        await told(signals, {"leads": "0"})
        facts["leads"] = "1"
        presence.renew()
        await told(signals, {"leads": "1"})
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await told(signals, None)


@pytest.mark.parametrize("kind", ["gateway", "autoscaler"])
async def test_another_secret_key_is_refused(kind: str) -> None:
    """It is told whose key is another one, and what to do; the print says nothing of the key."""
    signals, box = MemorySignals(), SecretBox(b"one key, 32 bytes long, at least")
    await refuse_another_key(signals, box)
    await signals.announce(kind, "old", {"machine": "m0"}, ttl_secs=60)
    await signals.announce(kind, "same", {"machine": "m1", "key": key_print(box)}, ttl_secs=60)
    await refuse_another_key(signals, box)
    await signals.announce(kind, "other", {"machine": "m2", "key": key_print(SecretBox(b"another"))}, ttl_secs=60)
    with pytest.raises(Refused, match=f"not that of the {kind} on m2.*GREENROOM_SECRET_KEY"):
        await refuse_another_key(signals, box)
    assert key_print(box) not in (box.derive("presence", "x"), box.derive("events", ""))
