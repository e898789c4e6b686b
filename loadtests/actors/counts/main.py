"""
Tells its run, which start of its program this is, and how many requests it has in its hands, the caller's included.

``/?ms=20`` takes 20 milliseconds. A caller who goes away is no longer counted, whatever was still to be done for him.
"""

import asyncio
import json
import os
import secrets

RUN = os.environ["ACTOR_RUN_ID"]
BOOT = secrets.token_hex(8)
in_flight = 0


class Counting(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.seen = b""
        self.holds = 0

    def connection_lost(self, error):
        global in_flight
        in_flight -= self.holds
        self.holds = 0

    def data_received(self, data):
        global in_flight
        self.seen += data
        while b"\r\n\r\n" in self.seen:
            head, _, self.seen = self.seen.partition(b"\r\n\r\n")
            if b"readiness-probe" in head.lower():
                self.write(b"ready")
                continue
            target = head.split()[1]
            in_flight += 1
            self.holds += 1
            told = {"run": RUN, "boot": BOOT, "in_flight": in_flight}
            takes = int(target.partition(b"ms=")[2] or b"0") / 1000
            asyncio.get_running_loop().call_later(takes, self.answer, json.dumps(told).encode())

    def answer(self, body):
        global in_flight
        if self.transport.is_closing():
            return
        # Before the answer is written: whoever has read it may send the next request at once.
        in_flight -= 1
        self.holds -= 1
        self.write(body)

    def write(self, body):
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def main():
    port = int(os.environ["ACTOR_WEB_SERVER_PORT"])
    server = await asyncio.get_running_loop().create_server(Counting, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


asyncio.run(main())
