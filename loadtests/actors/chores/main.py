"""A short job: writes some items to its dataset and its output, and ends."""

import json
import os
import urllib.request

ITEMS = 5


def call(method, path, value):
    request = urllib.request.Request(
        f"{os.environ['APIFY_API_BASE_URL'].rstrip('/')}/v2/{path}",
        json.dumps(value).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['APIFY_TOKEN']}"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


call("POST", f"datasets/{os.environ['ACTOR_DEFAULT_DATASET_ID']}/items", [{"number": n} for n in range(ITEMS)])
call("PUT", f"key-value-stores/{os.environ['ACTOR_DEFAULT_KEY_VALUE_STORE_ID']}/records/OUTPUT", {"items": ITEMS})
print(f"wrote {ITEMS} items")
