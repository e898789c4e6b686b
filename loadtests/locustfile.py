"""
Locust's users of a Greenroom: ``locust -f loadtests/locustfile.py --host http://127.0.0.1:8010``.

``GREENROOM_TOKEN`` holds a token that may push Actors, which the test does at its start. Locust's web page has a second
page, ``/greenroom``, with what Greenroom itself counted; ``python -m loadtests.locust_report`` starts a Greenroom, runs
all of this without a page and makes one report of both.

The weights are those of a house that is in use: most callers find their Actor awake, some wake one; few look at a live
view. Each answer is checked for what it has to be, not only for its status.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import gevent
import websocket
from flask import Response
from locust import FastHttpUser, between, constant_pacing, events, tag, task
from locust.env import Environment
from locust.exception import RescheduleTask, StopUser

from loadtests.locust_metrics import read_series, request_rows
from loadtests.locust_page import metrics_page
from loadtests.locust_setup import CHORES, SLEEPING, WARM, SetupFailed, Site, push_actors, site_of

_EVENTS, _EVENT_PAUSE_SECS = 10, 0.2
_MESSAGES = 10
_LIVE_PAGES = 5
_LIVE_RUN_SECS = 120
_READY_SECS = 30

_site: Site | None = None


@events.test_start.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """The Actors are pushed before the first user comes."""
    global _site
    try:
        site = site_of(environment.host)
        push_actors(site)
    except SetupFailed as error:
        # Locust goes on after an exception in a listener, with users that can't do anything.
        print(f"Greenroom can't be used: {error}", flush=True)
        environment.process_exit_code = 2
        if environment.runner:
            environment.runner.quit()
        return
    _site = site


@events.init.add_listener
def show_metrics(environment: Environment, **_: Any) -> None:
    """Locust's web page gets another one, with Greenroom's own figures."""
    if environment.web_ui is None or environment.web_ui.app is None:
        return

    @environment.web_ui.app.route("/greenroom")
    def greenroom() -> Response:
        try:
            series = read_series(environment.host or "")
        except OSError as error:
            return Response(f"{environment.host} can't be reached: {error}", 502, content_type="text/plain")
        return Response(metrics_page(request_rows(series), series), content_type="text/html; charset=utf-8")


class Caller(FastHttpUser):
    """Who calls an Actor or the API, by a connection that is kept."""

    abstract = True
    # Longer than Greenroom itself holds a request for a run.
    network_timeout = 130.0
    connection_timeout = 10.0
    site: Site

    def on_start(self) -> None:
        """Where Greenroom is."""
        if _site is None:
            raise StopUser
        self.site = _site

    def call(
        self,
        name: str,
        method: str,
        path: str,
        *,
        host: str | None = None,
        json_body: Any = None,
        data: bytes | None = None,
        expected: bytes | None = None,
    ) -> Any:
        """
        One request under the *name* of the statistics; the JSON of its answer, or None where there is none.

        Without *host* the API is called. A failed one is counted and ends the task.
        """
        headers: dict[str, str] = dict(self.site.authorization)
        if host:
            headers["Host"] = host
        if data is not None:
            headers["Content-Type"] = "application/octet-stream"
        else:
            data = b"" if json_body is None else json.dumps(json_body).encode()
            headers["Content-Type"] = "application/json"
        with self.client.request(method, path, name=name, data=data, headers=headers, catch_response=True) as answer:
            if not 200 <= answer.status_code < 300:
                answer.failure(f"{answer.status_code} {(answer.text or '')[:200]}")
                raise RescheduleTask
            if expected is not None and answer.content != expected:
                answer.failure(f"{len(answer.content)} bytes that are not the {len(expected)} expected")
                raise RescheduleTask
            kind = answer.headers.get("content-type", "")
            return answer.json() if "json" in kind else None

    def api(self, name: str, method: str, path: str, body: Any = None) -> Any:
        """The ``data`` of an answer of the API."""
        answer = self.call(f"api: {name}", method, f"/v2{path}", json_body=body)
        return answer["data"] if isinstance(answer, Mapping) and "data" in answer else answer

    def tell(self, kind: str, name: str, began: float, size: int, problem: Exception | None = None) -> None:
        """Count what is no plain request."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=(time.perf_counter() - began) * 1000,
            response_length=size,
            exception=problem,
            context=self.context(),
        )


class WarmCaller(Caller):
    """Calls an Actor that is awake: pages, and echoes of some kilobytes."""

    weight = 30
    wait_time = between(0.2, 1.5)

    @task(4)
    def page(self) -> None:
        """A page."""
        self.call("warm: page", "GET", "/", host=self.site.host(WARM))

    @task(2)
    def echo(self) -> None:
        """What is sent comes back."""
        sent = random.randbytes(random.choice((100, 2_000, 50_000)))
        self.call("warm: echo", "POST", "/echo", host=self.site.host(WARM), data=sent, expected=sent)


class Waker(Caller):
    """Calls Actors that mostly sleep: after its pause they have been idle for longer than they may."""

    weight = 8
    wait_time = between(5, 15)

    @task
    def wake(self) -> None:
        """A page that may have to be woken."""
        self.call("wake: page", "GET", "/", host=self.site.host(random.choice(SLEEPING)))


@tag("streams")
class Listener(Caller):
    """Reads a stream of events to its end."""

    weight = 6
    wait_time = between(1, 3)

    @task
    def listen(self) -> None:
        """All events come, in their order."""
        began = time.perf_counter()
        path = f"/events?count={_EVENTS}&pause={_EVENT_PAUSE_SECS}"
        headers = {**self.site.authorization, "Host": self.site.host(WARM)}
        with self.client.get(
            path, name="stream: first byte", headers=headers, stream=True, catch_response=True
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}")
                return
        try:
            text = "".join(answer.iter_content(chunk_size=1024, decode_content=True))
            heard = [int(line.removeprefix("data: ")) for line in text.splitlines() if line]
            problem = None if heard == list(range(_EVENTS)) else ValueError(f"events {heard} of {_EVENTS}")
        except Exception as error:  # whatever a cut stream looks like to this client, it is a failure to be counted
            heard, problem = [], error
        self.tell("GET", "stream: to its end", began, len(heard), problem)


@tag("sockets")
class Talker(Caller):
    """Opens a WebSocket, says something and hears it back some times, and closes it."""

    weight = 6
    wait_time = between(1, 4)

    @task
    def talk(self) -> None:
        """Each message comes back before the next is sent."""
        began = time.perf_counter()
        try:
            socket = websocket.create_connection(
                f"ws://{self.site.address}:{self.site.port}/ws",
                host=self.site.host(WARM),
                header=[f"{name}: {value}" for name, value in self.site.authorization.items()],
                timeout=30,
            )
        except (OSError, websocket.WebSocketException) as error:
            self.tell("WS", "socket: open", began, 0, error)
            return
        self.tell("WS", "socket: open", began, 0)
        try:
            for number in range(_MESSAGES):
                began = time.perf_counter()
                said = f"{number} {random.random()}" * random.choice((1, 20))
                socket.send(said)
                heard = socket.recv()
                self.tell("WS", "socket: echo", began, len(said), None if heard == said else ValueError("another text"))
                gevent.sleep(random.uniform(0.1, 0.5))
        except (OSError, websocket.WebSocketException) as error:
            self.tell("WS", "socket: echo", began, 0, error)
        finally:
            socket.close()


class ApiClient(Caller):
    """Works with storages of its own, as crawlers and their owners do."""

    weight = 8
    wait_time = between(0.5, 2)
    _PARTS: ClassVar = ("datasets", "key-value-stores", "request-queues")

    def on_start(self) -> None:
        """A storage of each kind."""
        super().on_start()
        self.ids = {part: self.api(f"create in {part}", "POST", f"/{part}")["id"] for part in self._PARTS}
        self.pushed = 0
        self.added = 0

    def on_stop(self) -> None:
        """They go with it."""
        for part, made in getattr(self, "ids", {}).items():
            self.api(f"delete from {part}", "DELETE", f"/{part}/{made}")

    @task(3)
    def push_items(self) -> None:
        """What was pushed is read again."""
        place = f"/datasets/{self.ids['datasets']}/items"
        items = [{"number": self.pushed + number, "text": "x" * 200} for number in range(10)]
        self.api("push items", "POST", place, items)
        offset, self.pushed = self.pushed, self.pushed + len(items)
        read = self.api("read items", "GET", f"{place}?offset={offset}&limit=10")
        if read != items:
            self.tell("GET", "api: items as pushed", time.perf_counter(), 0, ValueError(f"{len(read)} other items"))

    @task(3)
    def record(self) -> None:
        """What was written is read again."""
        place = f"/v2/key-value-stores/{self.ids['key-value-stores']}/records/key-{random.randrange(20)}"
        value = random.randbytes(random.choice((200, 5_000, 100_000)))
        self.call("api: write record", "PUT", place, data=value)
        self.call("api: read record", "GET", place, expected=value)

    @task(2)
    def queue(self) -> None:
        """A request is added, stands at the head, and is handled."""
        place = f"/request-queues/{self.ids['request-queues']}"
        self.added += 1
        url = f"https://example.com/{self.added}"
        added = self.api("add request", "POST", f"{place}/requests", {"url": url, "uniqueKey": url})
        head = self.api("head of queue", "GET", f"{place}/head?limit=10")
        if [one["url"] for one in head["items"]] != [url]:
            self.tell("GET", "api: head as added", time.perf_counter(), 0, ValueError(f"another head than {url}"))
        handled = {"id": added["requestId"], "url": url, "uniqueKey": url, "handledAt": "2026-01-01T00:00:00.000Z"}
        self.api("handle request", "PUT", f"{place}/requests/{added['requestId']}", handled)

    @task
    def look(self) -> None:
        """Lists, as a console shows them."""
        self.api("list Actors", "GET", "/actors?my=1&limit=20")
        self.api("list runs", "GET", "/actor-runs?desc=1&limit=20")


class Starter(Caller):
    """Starts a short run, waits for its end and reads what it made."""

    weight = 2
    wait_time = constant_pacing(8)

    @task
    def run_actor(self) -> None:
        """The run succeeds, and its items, output and log are there."""
        run = self.api("run an Actor", "POST", f"/acts/{self.site.user}~{CHORES}/runs?waitForFinish=60&memory=128")
        if run["status"] != "SUCCEEDED":
            self.tell("POST", "api: run succeeded", time.perf_counter(), 0, ValueError(run["status"]))
            return
        items = self.api("items of a run", "GET", f"/datasets/{run['defaultDatasetId']}/items")
        if len(items) != 5:
            self.tell("GET", "api: items of a run", time.perf_counter(), 0, ValueError(f"{len(items)} of 5 items"))
        self.call("api: log of a run", "GET", f"/v2/logs/{run['id']}")


class Visitor(Caller):
    """Starts a run and looks at its live view for a while."""

    weight = 3
    wait_time = between(3, 8)

    @task
    def visit(self) -> None:
        """Its pages are there as soon as the run says so, until it is aborted."""
        place = f"/acts/{self.site.user}~{WARM}/runs?timeout={_LIVE_RUN_SECS}&memory=128"
        run = self.api("start a run", "POST", place)
        host = run["containerUrl"].partition("//")[2].rstrip("/")
        try:
            deadline = time.monotonic() + _READY_SECS
            while not self.api("is it ready?", "GET", f"/actor-runs/{run['id']}")["isContainerServerReady"]:
                if time.monotonic() > deadline:
                    problem = TimeoutError(f"run {run['id']} did not serve within {_READY_SECS} s")
                    self.tell("GET", "live view: ready", time.perf_counter(), 0, problem)
                    return
                gevent.sleep(0.3)
            for _ in range(_LIVE_PAGES):
                self.call("live view: page", "GET", "/", host=host)
                gevent.sleep(random.uniform(0.5, 2))
        finally:
            self.api("abort a run", "POST", f"/actor-runs/{run['id']}/abort")
