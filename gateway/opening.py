"""Opens what the processes of one Greenroom share, as the settings say: records, blobs, signals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from gateway.auth import Authenticator
from gateway.builds import Builder
from gateway.data_dir import records_place
from gateway.live_logs import Logs
from gateway.refusals import USAGE, Refused
from gateway.secret_box import SecretBox
from gateway.services import Services, new_id, utc_now
from gateway.settings import Settings
from gateway.sources.fetch import fetch_source
from gateway.state.blobs import open_blobs
from gateway.state.ports import Blobs, Signals, State
from gateway.state.records import open_records
from gateway.state.signals_memory import MemorySignals
from gateway.urls import Urls


@contextlib.asynccontextmanager
async def open_services(settings: Settings, port: int) -> AsyncIterator[Services]:
    """
    The stores and what works on them, for a process by whose *port* runs reach this Greenroom.

    Raises StateUnavailable where a store can't be reached, Refused where its settings can't hold.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    async with open_records(records_place(settings)) as records, _open_signals(settings) as signals:
        state = State(records=records, blobs=_open_blobs(settings), signals=signals, storages=records.storages)
        box = SecretBox.from_data_dir(settings.data)
        logs = Logs(settings.data, state.blobs)
        fetch = partial(fetch_source, may_be_private=settings.allow_private_sources)
        yield Services(
            settings=settings,
            state=state,
            auth=Authenticator(
                records, cache_secs=settings.token_cache_secs, now=utc_now, clock=asyncio.get_running_loop().time
            ),
            box=box,
            logs=logs,
            urls=Urls(
                scheme=settings.public_scheme,
                domain=settings.domain,
                port=settings.public_port or port,
                local_port=port,
                local_host=settings.run_host or "127.0.0.1",
            ),
            builder=Builder(
                state,
                logs,
                box,
                now=utc_now,
                new_id=new_id,
                makes_images=settings.launcher != "process",
                fetch=fetch,
                max_log_chars=settings.max_log_chars,
            ),
        )


@contextlib.asynccontextmanager
async def _open_signals(settings: Settings) -> AsyncIterator[Signals]:
    if settings.signals_url is None:
        yield MemorySignals()
        return
    from gateway.state.signals_opening import open_signals

    async with open_signals(settings.signals_url) as signals:
        yield signals


def _open_blobs(settings: Settings) -> Blobs:
    if settings.blobs_url is None:
        return open_blobs(settings.data / "blobs")
    from gateway.state.blobs import open_blob_store

    try:
        return open_blob_store(settings.blobs_url)
    except ValueError as error:
        raise Refused(f"blobs_url (GREENROOM_BLOBS_URL): {error}", exit_code=USAGE) from error
