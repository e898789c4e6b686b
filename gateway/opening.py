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
from gateway.remote_logs import RemoteLogs
from gateway.secret_box import SecretBox
from gateway.services import Services, new_id, utc_now
from gateway.settings import Settings
from gateway.sources.fetch import fetch_source
from gateway.state.blobs import open_blobs
from gateway.state.ports import Blobs, State
from gateway.state.records import open_records
from gateway.state.signals_opening import open_signals
from gateway.urls import Urls


@contextlib.asynccontextmanager
async def open_services(settings: Settings, port: int, *, asks_for_logs: bool = False) -> AsyncIterator[Services]:
    """
    The stores and what works on them, for a process by whose *port* runs reach this Greenroom. With *asks_for_logs* it
    reads live logs that are not in its data folder from the autoscaler that leads.

    Raises StateUnavailable where a store can't be reached, Refused where its settings can't hold.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        records = await stack.enter_async_context(open_records(records_place(settings)))
        signals = await stack.enter_async_context(open_signals(settings.signals_url))
        state = State(records=records, blobs=_open_blobs(settings), signals=signals, storages=records.storages)
        box = SecretBox.from_data_dir(settings.data)
        elsewhere = await stack.enter_async_context(RemoteLogs(signals, box)) if asks_for_logs else None
        logs = Logs(settings.data, state.blobs, elsewhere)
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


def _open_blobs(settings: Settings) -> Blobs:
    if settings.blobs_url is None:
        return open_blobs(settings.data / "blobs")
    from gateway.state.blobs import open_blob_store

    try:
        return open_blob_store(settings.blobs_url)
    except ValueError as error:
        raise Refused(f"blobs_url (GREENROOM_BLOBS_URL): {error}", exit_code=USAGE) from error
