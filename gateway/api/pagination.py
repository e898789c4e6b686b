"""No I/O: which part of a list is asked for, and a list as the API shows it, with all five counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.api.fields import Query
from gateway.core.model import Page

MAX_LIMIT = 1000


def page_of(query: Query) -> Page:
    """``offset``, ``limit`` (at most 1000; 0 or none is 1000, as the platform has it) and ``desc``."""
    limit = query.whole("limit") or MAX_LIMIT
    return Page(offset=query.whole("offset") or 0, limit=min(limit, MAX_LIMIT), desc=query.flag("desc"))


def listing(items: Sequence[Any], page: Page, total: int) -> dict[str, Any]:
    """The list object; clients require every counter. Source: apify-wire.md §5."""
    return {
        "total": total,
        "offset": page.offset,
        "limit": page.limit,
        "count": len(items),
        "desc": page.desc,
        "items": list(items),
    }
