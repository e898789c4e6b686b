"""Holds each request for half a second, many at once."""

import asyncio
import os

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld"


class Holder(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.seen = b""

    def data_received(self, data):
        self.seen += data
        while b"\r\n\r\n" in self.seen:
            head, _, self.seen = self.seen.partition(b"\r\n\r\n")
            held_secs = 0 if b"readiness-probe" in head.lower() else 0.5
            asyncio.get_running_loop().call_later(held_secs, self.answer)

    def answer(self):
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


async def main():
    server = await asyncio.get_running_loop().create_server(
        Holder, "127.0.0.1", int(os.environ["ACTOR_WEB_SERVER_PORT"]), backlog=1024
    )
    await server.serve_forever()


asyncio.run(main())
