"""
No I/O: what of a request's head reaches the Actor, and what of the answer's head reaches the caller.

Towards the Actor: the raw target and the headers as they came, in order and with duplicates, less

- the hop-by-hop headers and those that ``Connection`` names (RFC 9110 §7.6.1),
- our own credentials (:class:`~gateway.proxy.plan.Credentials` says where they stood; tokens in a ``Referer`` too),
- what only we may say (request id, readiness probe, ``Forwarded`` and its relatives), which is set anew,

and with ``Via`` (RFC 9110 §7.6.3), by which a request that goes round in a circle is known. The request id comes last.

Names that differ from such a header only by ``_`` for ``-`` are dropped with it: CGI and WSGI can't tell them apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.core.errors import CodingNotSupported, InvalidRequest, LoopDetected, MethodNotAllowed
from gateway.proxy.plan import Credentials, ForwardPlan, Headers

CHUNKED = -1
"""As a body's length: not known beforehand."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What Connection may name without effect: removing these would change where the message goes or where it ends.
_NEVER_HOP_BY_HOP = frozenset({b"host", b"content-length", b"transfer-encoding"})
# Ours alone to say, so not believed from outside.
_ONLY_OURS = frozenset({b"x-apify-container-server-readiness-probe", b"x-actor-request-id", b"forwarded"})
# Of an upgrade to HTTP/2, which is not made (RFC 9113 §3.1), also where Connection fails to name it.
_OF_HTTP2 = b"http2-settings"
# Set-Cookie2 was given up (RFC 6265 §9.4); who still reads it would not see it kept to its host.
_NOT_FOR_CALLERS = HOP_BY_HOP | {b"proxy-authentication-info", b"set-cookie2", b"x-actor-request-id"}
_NOT_PASSED_ON = HOP_BY_HOP - {b"transfer-encoding"} | _ONLY_OURS | {_OF_HTTP2}
# Names that say how long the body is, but for an "_".
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_USUAL_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
# CONNECT asks for a forward proxy; what TRACE sends back could show a script what it may not see.
_METHODS_NOT_SERVED = frozenset({b"CONNECT", b"TRACE"})
_MAX_HOPS = 10
# In the path form an Actor shares its host with the API and the console: it must not speak for the whole host.
_SPEAKS_FOR_THE_HOST = frozenset({b"set-cookie", b"clear-site-data", b"strict-transport-security"})
_WEBSOCKET_HANDSHAKE = frozenset({b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions"})
_WEBSOCKET_ANSWER = frozenset({b"sec-websocket-accept", b"sec-websocket-protocol", b"sec-websocket-extensions"})

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_OUR_HOP = re.compile(rb"(?:^|,)[ \t]*[^ \t,]+[ \t]+greenroom[ \t]*(?=[,(]|$)", re.IGNORECASE)
_BAD_IN_TARGET = re.compile(rb"[\x00-\x20\x7f#]")
_BEARER = re.compile(rb"[ \t]*bearer[ \t]+(.*?)[ \t]*", re.IGNORECASE | re.DOTALL)
_METHOD = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}")
_LONGEST_LENGTH = 18
_SPACE_TO_ANYBODY = b" \t\x85\xa0"  # the last two to clients that read headers as ISO 8859-1 and trim them as text
_PORT = re.compile(rb":[0-9]*$")
_PLAIN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Prepared(NamedTuple):
    """
    What requests with the same headers have in common: the *text* of those for the Actor, as far as the value of the
    request id, which comes last, and the body's *length*, CHUNKED or None.
    """

    text: bytes
    length: int | None


def candidates_of(headers: Iterable[tuple[bytes, bytes]], query_string: bytes) -> list[str]:
    """
    The tokens that a request carries, each once, most telling first.

    The order is ``Authorization: Bearer``, ``X-Apify-Authorization: Bearer``, ``?token=``.
    """
    return list(_tokens(list(headers), query_string))


def credentials_of(headers: Iterable[tuple[bytes, bytes]], query_string: bytes, own: Collection[str]) -> Credentials:
    """Where the tokens in *own* stand in the request: whichever matched is removed from every place."""
    found = [(token, places) for token, places in _tokens(list(headers), query_string).items() if token in own]
    places = frozenset[str]().union(*(places for _, places in found))
    return Credentials(
        token=found[0][0] if found else None,
        in_authorization="authorization" in places,
        in_apify_authorization="x-apify-authorization" in places,
        in_query="query" in places,
    )


def without_token(query_string: bytes) -> bytes:
    """*query_string* without its ``token`` parameters; everything else stays byte for byte."""
    if b"token" not in query_string and b"%" not in query_string:
        return query_string
    return b"&".join(part for part in query_string.split(b"&") if not _is_token_key(part.partition(b"=")[0]))


def _url_without_token(url: bytes) -> bytes:
    """A browser that was given ``?token=`` names that address as the referer of all that its page asks for."""
    before, mark, query = url.partition(b"?")
    left = without_token(query)
    return before + mark + left if left else before


def body_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """
    How a request's body is framed: its Content-Length, CHUNKED, or None where there is none.

    Raises InvalidRequest for framing that two servers could read in two ways (RFC 9112 §6.3), also where a length is
    merely said twice, and CodingNotSupported for a coding other than ``chunked``.
    """
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"content-length":
            lengths.append(value)
        elif lower == b"transfer-encoding":
            codings.append(value)
    return framing(lengths, codings)


def framing(lengths: Sequence[bytes], codings: Sequence[bytes]) -> int | None:
    """The same from the values of all Content-Length and of all Transfer-Encoding headers."""
    if codings:
        if lengths:
            raise InvalidRequest("Transfer-Encoding and Content-Length exclude each other: send one of them.")
        named = [coding.strip(b" \t").lower() for coding in b",".join(codings).split(b",")]
        if named == [b"chunked"]:
            return CHUNKED
        if b"" in named or named.count(b"chunked") > 1:
            raise InvalidRequest("Transfer-Encoding must be 'chunked', once.")
        raise CodingNotSupported
    if not lengths:
        return None
    length = lengths[0].strip(b" \t")
    if len(lengths) > 1 or not length.isdigit() or len(length) > _LONGEST_LENGTH:
        raise InvalidRequest("Content-Length must be one decimal number, given once.")
    return int(length)


def refuse_chunks_in_old_http(length: int | None, version: str) -> None:
    """Raise InvalidRequest for a chunked body in HTTP/1.0: that knows no chunks, so who passed it on may not either."""
    if length == CHUNKED and version == "1.0":
        raise InvalidRequest("HTTP/1.0 has no Transfer-Encoding: send a Content-Length.")


def refuse_method(method: bytes) -> None:
    """Raise InvalidRequest for what is no method, and MethodNotAllowed for one that goes to no Actor."""
    if method in _USUAL_METHODS:
        return
    if method in _METHODS_NOT_SERVED:
        raise MethodNotAllowed(f"{method.decode()} is not served here: Greenroom is no forward proxy.")
    if not _METHOD.fullmatch(method):
        raise InvalidRequest("The method must be a word in capital letters, such as GET.")


def refuse_loop(vias: Iterable[bytes]) -> None:
    """Raise LoopDetected where *vias*, the values of all ``Via`` headers, name Greenroom more than ten times."""
    hops = sum(len(_OUR_HOP.findall(via)) for via in vias)
    if hops > _MAX_HOPS:
        raise LoopDetected(hops)


def target(raw_path: bytes, query_string: bytes, plan: ForwardPlan) -> bytes:
    """
    The request target as the Actor gets it: without the path form's prefix and our token, else byte for byte.

    Raises InvalidRequest where it can't stand in a request line.
    """
    prefix = plan.prefix.encode("latin-1")
    if not raw_path.startswith(prefix):
        raise InvalidRequest("The path does not begin with the prefix of its host.")
    path = raw_path[len(prefix) :] or b"/"
    query = query_string if plan.keep_credentials else without_token(query_string)
    whole = path + b"?" + query if query else path
    if _BAD_IN_TARGET.search(whole) or not (path.startswith(b"/") or path == b"*"):
        raise InvalidRequest("The request target holds characters that may not stand there.")
    return whole


def upstream_head(
    method: str,
    raw_path: bytes,
    query_string: bytes,
    headers: Headers,
    plan: ForwardPlan,
    *,
    is_chunked: bool = False,
    version: str = "1.1",
) -> bytes:
    """
    The whole request head for the Actor, with its empty line; *version* is that in which the request came (``Via``).

    The body's framing is the request's own; *is_chunked* says that a body of unknown length follows where no header
    does (in HTTP/2 none has to).
    Raises InvalidRequest and its relatives for a head that can't be sent on without changing its meaning.
    """
    prepared = prepare(headers, plan, is_chunked=is_chunked, version=version)
    return head_of(method, target(raw_path, query_string, plan), prepared, plan.request_id)


def prepare(headers: Headers, plan: ForwardPlan, *, is_chunked: bool, version: str) -> Prepared:
    """What ``upstream_head`` makes of *headers*; the plan's address and request id are not looked at."""
    length = body_length(headers)
    refuse_chunks_in_old_http(length, version)
    refuse_bad_headers(headers)
    lines = lines_for_actor(headers, plan)
    if length is None and is_chunked:
        length = CHUNKED
        lines.append((b"Transfer-Encoding", b"chunked"))
    return Prepared(_with_ours(lines, plan, version), length)


def head_of(method: str, whole_target: bytes, prepared: Prepared, request_id: str) -> bytes:
    """A whole head. Raises InvalidRequest and MethodNotAllowed for a method that goes to no Actor."""
    verb = method.encode("latin-1", "replace")
    refuse_method(verb)
    return b"%b %b HTTP/1.1\r\n%b%b\r\n\r\n" % (verb, whole_target, prepared.text, request_id.encode("latin-1"))


def upgrade_head(raw_path: bytes, query_string: bytes, headers: Headers, plan: ForwardPlan, key: bytes) -> bytes:
    """
    The head that opens the Actor's side of a WebSocket, with our own handshake *key* and no extensions.

    The subprotocols stay as the client offered them, and so do Origin, cookies and User-Agent.
    """
    refuse_bad_headers(headers)
    ours = _WEBSOCKET_HANDSHAKE | _FRAMING
    lines = [(name, value) for name, value in lines_for_actor(headers, plan) if name.lower() not in ours]
    lines += [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", key),
    ]
    return head_of(
        "GET", target(raw_path, query_string, plan), Prepared(_with_ours(lines, plan), None), plan.request_id
    )


def answer_headers(headers: Headers, plan: ForwardPlan) -> Headers:
    """
    The answer's headers for the caller: the Actor's, in order, less what belongs to the connection, plus the plan's.

    A cookie stays with the host that set it: a ``Domain`` other than the very host is cut.
    """
    kept = kept_headers(headers, plan.host, is_sandboxed=plan.is_sandboxed)
    return kept if plan.answer_headers is None else [*kept, *plan.answer_headers()]


def kept_headers(headers: Headers, host: str, *, is_sandboxed: bool) -> Headers:
    """What ``answer_headers`` keeps of *headers* for a caller who asked *host*."""
    lines = lines_for_caller(headers, host.encode("latin-1", "replace"), is_sandboxed=is_sandboxed)
    kept = [(name.lower(), value) for name, value in lines]
    if is_sandboxed:
        kept.append((b"content-security-policy", b"sandbox"))
    return kept


def lines_for_caller(headers: Headers, host: bytes, *, is_sandboxed: bool = False) -> Headers:
    """
    What of *headers*, an Actor's, goes to a caller who asked *host*: names as the Actor wrote them, order as it was.

    ``Transfer-Encoding`` is not among them: whoever sends the body frames it. The request id is the gateway's to say.
    """
    named = _named_by_connection(headers)
    kept: Headers = []
    for name, value in headers:
        lower = name.lower()
        if lower in _NOT_FOR_CALLERS or lower in named or (is_sandboxed and lower in _SPEAKS_FOR_THE_HOST):
            continue
        kept.append((name, with_own_domain(value, host) if lower == b"set-cookie" else value))
    return kept


def accept_headers(headers: Headers, plan: ForwardPlan) -> Headers:
    """What of the Actor's 101 goes with our own: cookies and the like, without the handshake and the framing."""
    ours = _WEBSOCKET_ANSWER | {b"content-length"}
    return [(name, value) for name, value in answer_headers(headers, plan) if name not in ours]


def refuse_bad_headers(headers: Headers) -> None:
    """Raise for headers that can't stand in a head, for several hosts and for loops: not every ASGI server does."""
    hosts, vias = 0, []
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or _BAD_IN_VALUE.search(value):
            raise InvalidRequest("A header holds characters that may not stand there.")
        lower = name.lower()
        if lower == b"host":
            hosts += 1
        elif lower == b"via":
            vias.append(value)
    if hosts > 1:
        raise InvalidRequest("A request has one Host header.")
    refuse_loop(vias)


def lines_for_actor(headers: Headers, plan: ForwardPlan) -> Headers:
    """
    What of *headers* the Actor gets, in order, its framing among it; ours (``said_by_us``) come after.

    They have been checked. Only ``Referer`` and the framing have their values looked at.
    """
    named = _named_by_connection(headers)
    kept: Headers = []
    has_host = False
    for name, value in headers:
        lower = name.lower()
        dashed = lower.replace(b"_", b"-")
        if lower == b"host":
            has_host = True
        elif (
            dashed in _NOT_PASSED_ON
            or lower in named
            or (dashed in _FRAMING and lower not in _FRAMING)
            or dashed.startswith(b"x-forwarded-")
            or _is_credential(dashed, plan)
            or (plan.is_sandboxed and dashed == b"cookie")
        ):
            continue
        elif dashed == b"referer" and not plan.keep_credentials:
            value = _url_without_token(value)
        elif lower in _FRAMING:
            value = _plain_framing(value)
        kept.append((name, value))
    if not has_host:
        kept.insert(0, (b"Host", (plan.host or str(plan.address)).encode("latin-1")))
    return kept


def said_by_us(
    *, client_host: str, proxies: Sequence[str], host: str, scheme: str, prefix: str = "", version: str = "1.1"
) -> Headers:
    """
    Who asked whom (RFC 7239), as this gateway knows it, and that it was here. *version* is the request's own of HTTP.

    Raises InvalidRequest where the host or an address can't stand in a header.
    """
    asked, protocol = host.encode("latin-1"), scheme.encode("latin-1")
    hops = [hop.encode("latin-1") for hop in (client_host, *proxies) if hop]
    said: Headers = []
    if hops:
        said.append((b"X-Forwarded-For", b", ".join(hops)))
    if asked:
        said.append((b"X-Forwarded-Host", asked))
    said.append((b"X-Forwarded-Proto", protocol))
    if prefix:
        said.append((b"X-Forwarded-Prefix", prefix.encode("latin-1")))
    client, *others = [b"for=" + _quoted(b"[" + hop + b"]" if b":" in hop else hop) for hop in hops or [b"unknown"]]
    forwarded = [client, b"proto=" + _quoted(protocol)]
    if asked:
        forwarded.insert(1, b"host=" + _quoted(asked))
    said.append((b"Forwarded", b", ".join([b";".join(forwarded), *others])))
    said.append((b"Via", version.encode("latin-1") + b" greenroom"))
    if any(_BAD_IN_VALUE.search(value) for _, value in said):
        raise InvalidRequest("The request's host or address holds characters that may not stand there.")
    return said


def _plain_framing(value: bytes) -> bytes:
    """As ``framing`` has read it, so that nobody reads it otherwise: no leading zeros, ``chunked`` in small letters."""
    value = value.strip(b" \t").lower()
    return b"%d" % int(value) if value.isdigit() else value


def _is_credential(name: bytes, plan: ForwardPlan) -> bool:
    if plan.keep_credentials:
        return False
    return name == b"x-apify-authorization" or (name == b"authorization" and plan.credentials.in_authorization)


def _quoted(value: bytes) -> bytes:
    if _PLAIN.fullmatch(value):
        return value
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def as_text(lines: Headers) -> bytes:
    """*lines* as they stand in a head, without its empty line."""
    return b"".join([part for name, value in lines for part in (name, b": ", value, b"\r\n")])


def _with_ours(lines: Headers, plan: ForwardPlan, version: str = "1.1") -> bytes:
    """*lines* and what only we say, up to the value of the request id."""
    said = said_by_us(
        client_host=plan.client_host,
        proxies=plan.proxies,
        host=plan.host,
        scheme=plan.scheme,
        prefix=plan.prefix,
        version=version,
    )
    return as_text([*lines, *said]) + b"X-Actor-Request-ID: "


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    named: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"connection":
            named.update(option.strip(b" \t").lower() for option in value.split(b","))
    return frozenset(named - _NEVER_HOP_BY_HOP)


def with_own_domain(cookie: bytes, host: bytes) -> bytes:
    """*cookie* without ``Domain``, unless that is the very *host*: ``a.localhost`` sets none for ``localhost``."""
    if b"domain" not in cookie.lower():
        return cookie
    own = _PORT.sub(b"", host).lower()
    pair, *attributes = cookie.split(b";")
    kept = [pair]
    for attribute in attributes:
        key, _, value = attribute.partition(b"=")
        is_domain = key.strip(_SPACE_TO_ANYBODY).lower() == b"domain"
        if not is_domain or (own and value.strip(b" \t").lower().removeprefix(b".") == own):
            kept.append(attribute)
    return b";".join(kept)


def _tokens(headers: Headers, query_string: bytes) -> dict[str, set[str]]:
    """Each token with the places where it stands."""
    found: dict[str, set[str]] = {}
    for place in (b"authorization", b"x-apify-authorization"):
        for name, value in headers:
            if name.lower() == place and (match := _BEARER.fullmatch(value)) and match[1]:
                found.setdefault(_text(match[1]), set()).add(place.decode())
    for part in query_string.split(b"&"):
        key, _, value = part.partition(b"=")
        if value and _is_token_key(key):
            found.setdefault(_text(unquote_to_bytes(value.replace(b"+", b" "))), set()).add("query")
    return found


def _is_token_key(key: bytes) -> bool:
    return key == b"token" or (b"%" in key and unquote_to_bytes(key) == b"token")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
