"""A batch Actor that uses every basic command of the Apify SDK once; its log tells what comes back."""

import asyncio
import base64

from apify import Actor, Request

PIXEL = base64.b64decode(  # a PNG of one grey pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


async def main():
    # Entering initialises the SDK: it asks the platform for this run and begins to listen to system events.
    async with Actor:
        # Input: what the caller gave, with the defaults of the input schema filled in.
        given = await Actor.get_input() or {}
        pages, ending = given.get("pages", 3), given.get("ending", "exit")
        Actor.log.info(f"Run {Actor.configuration.actor_run_id}: {pages} pages, and then {ending}.")

        # Key-value store: JSON, text and bytes, each read back as it was written.
        await Actor.set_value("settings", {"pages": pages, "ending": ending})
        await Actor.set_value("note", "a text, with umlauts: äöü")
        await Actor.set_value("pixel", PIXEL, content_type="image/png")
        assert await Actor.get_value("settings") == {"pages": pages, "ending": ending}
        assert await Actor.get_value("note") == "a text, with umlauts: äöü"
        assert await Actor.get_value("pixel") == PIXEL
        assert await Actor.get_value("never-written") is None

        # Request queue: each address once, however often it is added.
        queue = await Actor.open_request_queue()
        addresses = [f"https://example.com/{number}" for number in range(1, pages + 1)]
        await queue.add_requests([Request.from_url(address) for address in addresses + addresses])

        # State: a dictionary that is kept by itself, now and then and at the end.
        state = await Actor.use_state({"done": 0})

        while (request := await queue.fetch_next_request()) is not None:
            number = int(request.url.rpartition("/")[2])
            # Dataset: what the run has found.
            await Actor.push_data({"url": request.url, "number": number, "isEven": number % 2 == 0})
            await queue.mark_request_as_handled(request)
            state["done"] += 1
            # Status message: one line that tells people how far it is.
            await Actor.set_status_message(f"{state['done']} of {pages} pages")
        assert await queue.is_finished()

        dataset = await Actor.open_dataset()
        found = (await dataset.get_data()).items
        await Actor.set_value("OUTPUT", {"pages": len(found), "sum": sum(item["number"] for item in found)})

        if ending == "fail":
            await Actor.fail(status_message="Failed, as it was told to")
        elif ending == "crash":
            raise RuntimeError("nobody catches this")
        await Actor.exit(status_message=f"Done: {len(found)} pages")


if __name__ == "__main__":
    asyncio.run(main())
