"""Object storage that speaks S3: how an address of the settings becomes a store with bounded waits."""

from __future__ import annotations

import os
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from gateway.state.ports import StateUnavailable

_REGION = "us-east-1"  # what stores outside of Amazon mostly call theirs
_CONNECT_SECS = 3.0
_REQUEST_SECS = 20.0  # for the first byte of an answer and for a part of 5 MiB; a longer read is resumed
_TRIES = 3
_TRYING_SECS = 15.0  # after so long no other try is begun
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def open_bucket(url: str) -> S3Store:
    """
    The store at *url*: ``s3://bucket[/prefix]?endpoint=http://host:port&region=name``.

    Its keys come from the variables ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``. Raises ValueError for an
    address that is none, StateUnavailable where keys are missing or the bucket can't be used.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError("Blobs are kept in a bucket: s3://BUCKET[/PREFIX][?endpoint=http://HOST:PORT&region=NAME].")
    missing = [name for name in _KEYS if not os.environ.get(name)]
    if missing:
        raise StateUnavailable(f"Blobs: {parts.netloc} needs its keys in the variables {' and '.join(missing)}.")
    asked = dict(parse_qsl(parts.query))
    endpoint = asked.get("endpoint")
    store = S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        endpoint=endpoint,
        region=asked.get("region", _REGION),
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": (endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=_CONNECT_SECS),
            "timeout": timedelta(seconds=_REQUEST_SECS),
        },
        retry_config={
            "max_retries": _TRIES,
            "retry_timeout": timedelta(seconds=_TRYING_SECS),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
        },
    )
    try:
        # A missing bucket would look as if it held nothing.
        next(obstore.list(store, chunk_size=1), None)
    except (BaseError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise StateUnavailable(f"Blobs: the bucket {parts.netloc} can't be used: {reason}") from error
    return store
