"""A standby Actor on FastAPI whose page shows, live over a WebSocket, what its run is doing."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse

RUN_ID = os.environ["ACTOR_RUN_ID"]
PAGE = Path(__file__).with_name("page.html")

app = FastAPI(title="Live view")
served = 0


@app.middleware("http")
async def count_requests(request: Request, call_next):
    global served
    # Greenroom's readiness probe is no request of anybody's.
    if "x-apify-container-server-readiness-probe" not in request.headers:
        served += 1
    return await call_next(request)


def figures():
    return {"runId": RUN_ID, "served": served, "clock": datetime.now(UTC).isoformat(timespec="seconds")}


@app.get("/")
async def page():
    return FileResponse(PAGE, media_type="text/html")


@app.get("/figures")
async def figures_once():
    return figures()


@app.websocket("/live")
async def live(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            await socket.send_json(figures())
            await asyncio.sleep(1)
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=int(os.environ["ACTOR_WEB_SERVER_PORT"]))
