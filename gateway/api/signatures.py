"""Whether the signature in a call's query stands for a token; for ``storage_of_path``."""

from __future__ import annotations

from collections.abc import Callable

from gateway.api.call import Call
from gateway.auth import url_signing_secret
from gateway.core.model import Storage
from gateway.core.signed_urls import is_record_signature, is_storage_signature


def is_signed_for_storage(call: Call) -> Callable[[Storage], bool]:
    """Tells of a storage whether the call's signature is that of its list of keys or items, and still holds."""

    def is_signed(storage: Storage) -> bool:
        secret = url_signing_secret(call.services.box, storage.id)
        now_ms = int(call.services.now().timestamp() * 1000)
        return is_storage_signature(call.query.text("signature") or "", secret, storage.id, now_ms=now_ms)

    return is_signed


def is_signed_for_record(call: Call, key: str) -> Callable[[Storage], bool]:
    """Tells of a store whether the call's signature is that of its record *key*."""

    def is_signed(storage: Storage) -> bool:
        secret = url_signing_secret(call.services.box, storage.id)
        return is_record_signature(call.query.text("signature") or "", secret, key)

    return is_signed
