"""No I/O: what the editor of a field asks of its value, beyond JSON Schema. Source: apify-platform.md §4.4."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from gateway.actor_files.input_errors import Problem, named, problem
from gateway.actor_files.patterns import PatternBudget

_PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})
_COUNTRY = re.compile(r"[A-Z]{2}")
_MAX_TOLD = 100


def field_problems(
    properties: Mapping[str, Any], required: Sequence[str], given: Mapping[str, Any], budget: PatternBudget
) -> Iterator[Problem]:
    """The mistakes in those fields of *given* whose editors know more than their types. Raises TooSlow."""
    for name, field in properties.items():
        value = given.get(name)
        if value is None or not isinstance(field, Mapping):
            continue
        messages = _messages(name, field, value, is_required=name in required, budget=budget)
        if message := ", ".join(messages):
            yield problem(name, message)


def _messages(
    name: str, field: Mapping[str, Any], value: Any, *, is_required: bool, budget: PatternBudget
) -> Iterator[str]:
    kind, editor = field.get("type"), field.get("editor")
    if kind == "object" and isinstance(value, dict):
        if editor == "proxy":
            yield from _proxy(name, value, is_required=is_required)
        yield from _of_object(name, field, value, budget)
    elif kind == "array" and isinstance(value, list):
        if editor == "requestListSources":
            yield from _sources(name, value)
        yield from _of_array(name, field, value, budget)


def _sources(name: str, value: list[Any]) -> Iterator[str]:
    wrong = [index for index, item in enumerate(value) if not _is_source(item)]
    if wrong:
        yield f"Items in {named(name)} at positions [{_listed(wrong)}] do not contain valid URLs"


def _is_source(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    urls = [url for url in (item.get("url"), item.get("requestsFromUrl")) if url]
    return bool(urls) and all(_is_url(url) for url in urls)


def _is_url(url: Any) -> bool:
    if not isinstance(url, str) or any(character.isspace() for character in url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is none
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _proxy(name: str, value: Mapping[str, Any], *, is_required: bool) -> Iterator[str]:
    uses_apify, urls, country = value.get("useApifyProxy"), value.get("proxyUrls"), value.get("apifyProxyCountry")
    urls = urls if isinstance(urls, list) else []
    if is_required and not uses_apify and not urls:
        yield f"Field {named(name)} is required. Please provide custom proxy URLs or use Apify Proxy."
        return
    if not uses_apify:
        wrong = next((url for url in urls if not _is_proxy_url(url)), None)
        if wrong is not None:
            # A proxy's address holds its password, so it is not repeated.
            yield (
                f"Proxy URL at position {urls.index(wrong)} in {named(name)} has invalid format, "
                "it must be http://[username[:password]]@hostname:port."
            )
        if country:
            yield "The country for Apify Proxy can be specified only when using Apify Proxy."
        return
    if country and not (isinstance(country, str) and _COUNTRY.fullmatch(country)):
        yield f'Country code "{country}" is invalid. Only ISO 3166-1 alpha-2 country codes are supported.'
    groups = value.get("apifyProxyGroups")
    if groups and not (isinstance(groups, list) and all(isinstance(group, str) for group in groups)):
        yield f"Field {named(name)}.apifyProxyGroups must be an array of strings"


def _is_proxy_url(url: Any) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url.strip())
        return parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        return False


def _of_array(name: str, field: Mapping[str, Any], value: list[Any], budget: PatternBudget) -> Iterator[str]:
    """``patternKey`` and ``patternValue`` of lists of pairs and of texts."""
    parts: dict[str, tuple[str, str | None]]
    match field.get("editor"):
        case "keyValue":
            parts = {"Keys": ("patternKey", "key"), "Values": ("patternValue", "value")}
        case "stringList":
            parts = {"Values": ("patternValue", None)}
        case _:
            return
    for what, (keyword, part) in parts.items():
        pattern = field.get(keyword)
        if not isinstance(pattern, str) or not pattern:
            continue
        texts = [_part(item, part) for item in value]
        wrong = [index for index, text in enumerate(texts) if not _fits(text, pattern, budget)]
        if wrong:
            where = f"{named(name)} at positions [{_listed(wrong)}]"
            yield f'{what} in {where} must match regular expression "{pattern}"'


def _part(item: Any, part: str | None) -> Any:
    if part is None:
        return item
    return item.get(part) if isinstance(item, dict) else None


def _of_object(name: str, field: Mapping[str, Any], value: Mapping[str, Any], budget: PatternBudget) -> Iterator[str]:
    for keyword, texts, demand in (
        ("patternKey", {key: key for key in value}, "must match regular expression"),
        ("patternValue", value, "must have string value which matches regular expression"),
    ):
        pattern = field.get(keyword)
        if not isinstance(pattern, str) or not pattern:
            continue
        wrong = [key for key, text in texts.items() if not _fits(text, pattern, budget)]
        if wrong:
            yield f'Keys [{_listed(wrong)}] in {named(name)} {demand} "{pattern}"'


def _fits(text: Any, pattern: str, budget: PatternBudget) -> bool:
    return isinstance(text, str) and budget.finds(pattern, text)


def _listed(values: Sequence[Any]) -> str:
    more = ",…" if len(values) > _MAX_TOLD else ""
    return ",".join(str(value) for value in values[:_MAX_TOLD]) + more
