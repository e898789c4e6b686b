"""Greenroom's own additions to the API, below ``/v2/greenroom``: pushing a folder."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from starlette.responses import Response

from gateway.api.body import pieces
from gateway.api.call import Call, Endpoint, answer
from gateway.api.errors import InvalidContentType
from gateway.api.upload import MAX_UPLOAD_BYTES, snapshot_of_archive
from gateway.api.views import ActorFigures, actor_view, build_view
from gateway.core.errors import RecordNotFound
from gateway.core.model import Origin

_ARCHIVE_TYPES = frozenset({"application/gzip", "application/x-gzip"})


async def push(call: Call) -> Response:
    """
    ``POST /v2/greenroom/push``: a source archive, as ``gateway.actor_files.snapshot.pack_folder`` makes it, becomes an
    Actor with a version and a build: a new one, or a new build of the one with the name in its ``actor.json``.

    The body is the gzipped tar (``Content-Type: application/gzip``); the answer is ``{actor, build}``.
    """
    kind = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _ARCHIVE_TYPES:
        raise InvalidContentType("A source archive is sent with 'Content-Type: application/gzip'.")
    user = await call.records.user(call.principal.user_id)
    if user is None:
        raise RecordNotFound("User")
    with tempfile.TemporaryDirectory(prefix="greenroom-push-") as folder:
        path = Path(folder) / "source.tar.gz"
        with path.open("wb") as file:
            async for piece in pieces(call.request, MAX_UPLOAD_BYTES):
                file.write(piece)
        snapshot = await asyncio.to_thread(snapshot_of_archive, path)
    actor, build = await call.services.builder.register(user, snapshot, origin=Origin.CLI)
    await call.tell("actor", actor.id)
    return answer(
        {
            "actor": actor_view(
                actor,
                user.username,
                await call.records.list_versions(actor.id),
                call.services.urls,
                figures=ActorFigures(),
                for_owner=True,
                names=await call.records.list_names(actor.id),
            ),
            "build": build_view(build, for_owner=True),
        },
        201,
    )


ENDPOINTS = (Endpoint(method="POST", path="/greenroom/push", handler=push, scope="actors:write"),)
