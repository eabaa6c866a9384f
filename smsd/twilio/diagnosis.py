"""The signature doctor: names the likely cause of a wrong X-Twilio-Signature.

It must never accept a request; `signature.verify` alone does. It must not raise either,
whatever the request contains.

Proxies and settings change the URL, the key or the form in known ways. Each suspect
undoes one of these changes; if the signature then fits, the cause is found. Nothing is
guessed without a fit, except what the request itself shows. The work for one request is
bounded: MOST_TRIES signatures over about MOST_BYTES.
"""

import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, permutations, product
from urllib.parse import quote, unquote_to_bytes, urlsplit

from smsd.twilio.signature import (
    Key,
    KeyRing,
    Params,
    candidate_urls,
    from_wire,
    mac,
    octets,
    origins,
    signed_string,
    verify,
)

MOST_TRIES = 1000
MOST_BYTES = 4_000_000

ADVICE: Mapping[str, str] = {
    "scheme": "Twilio calls http where SMSD_PUBLIC_URL says https, or the reverse; make both https.",
    "host": "Twilio calls another host name than that of SMSD_PUBLIC_URL; make them equal.",
    "host_case": "The host in Twilio's console has other capitals than SMSD_PUBLIC_URL; make both lower case.",
    "port": "Twilio calls another port than that of SMSD_PUBLIC_URL; make them equal.",
    "slash": "Twilio's URL has one slash more or less than SMSD_PUBLIC_URL followed by /sms; make them equal.",
    "prefix": "Twilio's URL has another path before /sms than SMSD_PUBLIC_URL; make them equal.",
    "query": "A proxy changed or dropped the query; have it pass the query on as received.",
    "query_order": "The query was signed in another order; in Twilio's console, sort its parameters by name.",
    "token": "Signed with a token of another account; check TWILIO_AUTH_TOKEN and SMSD_ACCOUNTS.",
    "shared_key": "Signed with a shared key not registered under this id and account; check SMSD_ACCOUNTS.",
    "algorithm": "Signed with another algorithm than SMSD_ACCOUNTS has for the key; correct it there.",
    "signature_twice": "X-Twilio-Signature arrived twice with different values; have the proxy add none.",
    "blanks": "A proxy drops blank fields of the form; have it pass the body on as received.",
    "whitespace": "A proxy trims blanks or changes line breaks; have it pass the body on as received.",
    "no_fields": "No form fields arrived: a proxy lost the body, or another product sent JSON; only forms are served.",
    "unknown": "No usual cause fits; compare TWILIO_AUTH_TOKEN and SMSD_PUBLIC_URL with Twilio's console.",
}
"""Cause -> what the operator is told. Contains nothing of the request."""

CAUSES: tuple[str, ...] = tuple(ADVICE)
"""Every value of `smsd_signature_mismatch_total{cause}`."""

_MOST_KEYS_TRIED = 4
_MOST_KEYS_OF_OTHERS = 50
_MOST_LABELS = 4
_MOST_SIGNATURES = 3
_MOST_PARAMETERS = 5
_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:]{2,45}\])(:[0-9]{1,5})?")
_USUAL_PORTS = (":80", ":443", ":8080", ":8443")
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_ORIGINAL_TARGET_HEADERS = ("X-Original-URI", "X-Original-URL", "X-Envoy-Original-Path")
_FROM = ("FromCity", "FromState", "FromZip", "FromCountry")
_TO = ("ToCity", "ToState", "ToZip", "ToCountry")
_TRIMMED = (
    (b"", b" "),
    (b"", b"\n"),
    (b"", b"\r\n"),
    (b"", b"  "),
    (b" ", b""),
    (b"\n", b""),
    (b" ", b" "),
)


def explain(
    ring: KeyRing, public_url: str, target: str, params: Params, headers: Mapping[str, str]
) -> str:
    """Return one of CAUSES.

    target   as for `candidate_urls`
    headers  by their usual names, or in any case
    """
    header = headers.get("X-Twilio-Signature", "")
    signature = header.encode("latin-1", "replace")
    account_sid = next(iter(params.get("AccountSid", ())), b"").decode("utf-8", "replace")
    keys = ring.keys_for(account_sid, headers.get("X-Twilio-Webhooks-Signature-Settings"))
    for value in header.split(",")[:_MOST_SIGNATURES] if "," in header else ():
        if verify(keys, candidate_urls(public_url, target), params, value.strip()):
            return "signature_twice"
    bytes_tried = 0
    for cause, key, signed in islice(
        _tries(ring, keys, public_url, target, params, headers), MOST_TRIES
    ):
        if hmac.compare_digest(mac(key, signed), signature):
            return cause
        bytes_tried += len(signed)
        if bytes_tried > MOST_BYTES:
            break
    if not params:
        return "no_fields"
    return "unknown" if keys else "shared_key"


def _tries(
    ring: KeyRing,
    keys: Sequence[Key],
    public_url: str,
    target: str,
    params: Params,
    headers: Mapping[str, str],
) -> Iterator[tuple[str, Key, bytes]]:
    """Cause, key, and what Twilio would have signed with it; the likely ones first."""
    keys = keys[:_MOST_KEYS_TRIED]
    fields = signed_string(b"", params)
    for cause, url in _urls(public_url, from_wire(target), headers):
        for key in keys:
            yield cause, key, octets(url) + fields
    usual_urls = [octets(url) for url in candidate_urls(public_url, target)]
    for cause, key in _other_keys(ring):
        for usual_url in usual_urls:
            yield cause, key, usual_url + fields
    for cause, form in _forms(params):
        fields = signed_string(b"", form)
        for key in keys:
            for usual_url in usual_urls:
                yield cause, key, usual_url + fields
    fields = signed_string(b"", params)
    for cause, url in _unlikely_urls(public_url, from_wire(target)):
        for key in keys:
            yield cause, key, octets(url) + fields


def _urls(public_url: str, target: str, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """URLs that may be in Twilio's console."""
    public = urlsplit(public_url)
    prefix = public.path.rstrip("/")
    schemes = (public.scheme, "http" if public.scheme == "https" else "https")
    for origin in origins(f"{schemes[1]}://{public.netloc}"):
        yield "scheme", origin + prefix + target
    for cause, netloc in _netlocs(public.netloc, headers):
        for scheme in schemes:
            yield cause, f"{scheme}://{netloc}{prefix}{target}"
    for cause, whole_target in _targets(prefix, target, headers):
        for origin in origins(f"{public.scheme}://{public.netloc}"):
            yield cause, origin + whole_target


def _unlikely_urls(public_url: str, target: str) -> Iterator[tuple[str, str]]:
    """Capitals in the host and orders of the query, of which there are many."""
    public = urlsplit(public_url)
    prefix = public.path.rstrip("/")
    host, colon, port = public.netloc.rpartition("@")[2].partition(":")
    labels = host.lower().split(".")
    if len(labels) <= _MOST_LABELS:
        for spelled in product(*((label, label.title(), label.upper()) for label in labels)):
            for origin in origins(f"{public.scheme}://{'.'.join(spelled)}{colon}{port}")[:2]:
                yield "host_case", f"{origin}{prefix}{target}"
    path, _, query = target.partition("?")
    parts = query.split("&")
    if 1 < len(parts) <= _MOST_PARAMETERS:
        orders: Iterable[Sequence[str]] = permutations(parts)
    else:
        orders = (sorted(parts), parts[::-1])
    for order in orders:
        for origin in origins(public_url):
            yield "query_order", f"{origin}{path}?{'&'.join(order)}"


def _netlocs(public_netloc: str, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Host and port as the headers name them, with and without usual ports."""
    own = _HOST.fullmatch(public_netloc.rpartition("@")[2])
    own_name = own[1] if own else ""
    for header in ("Host", "X-Forwarded-Host"):
        received = _HOST.fullmatch(headers.get(header, "").partition(",")[0].strip())
        if received:
            same = received[1].lower() == own_name.lower()
            for port in dict.fromkeys((received[2] or "", "", ":443", ":80")):
                yield ("port", own_name + port) if same else ("host", received[1] + port)
                if same and received[1] != own_name:
                    yield "host_case", received[1] + port
    for port in _USUAL_PORTS:
        yield "port", own_name + port


def _targets(prefix: str, target: str, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Path and query from the root."""
    path, mark, query = target.partition("?")
    yield "slash", prefix + (path[:-1] if path.endswith("/") else f"{path}/") + mark + query
    yield "slash", f"{prefix}/{target}"
    if prefix:
        yield "prefix", target
    if stripped := from_wire(headers.get("X-Forwarded-Prefix", "")).strip("/"):
        yield "prefix", f"/{stripped}{target}"
    for header in _ORIGINAL_TARGET_HEADERS:
        if original := from_wire(headers.get(header, "")):
            yield "query" if original.partition("?")[0] == prefix + path else "prefix", original
    yield "query", prefix + path
    for changed in _queries(query):
        yield "query", f"{prefix}{path}?{changed}"


def _queries(query: str) -> Iterator[str]:
    """A query as it may have been before something re-encoded it."""
    yield ""  # a lone question mark
    parts = query.split("&")
    yield query.replace("+", "%20")
    yield query.replace("%20", "+")
    yield _ESCAPE.sub(lambda escape: escape[0].upper(), query)
    yield _ESCAPE.sub(lambda escape: escape[0].lower(), query)
    for safe in ("=&", "=&/:,@!$'()*;", "=&+"):
        yield quote(unquote_to_bytes(octets(query)), safe)
    yield unquote_to_bytes(octets(query)).decode("utf-8", "surrogateescape")
    yield "&".join(part.removesuffix("=") for part in parts)
    yield "&".join(part if "=" in part else f"{part}=" for part in parts)


def _other_keys(ring: KeyRing) -> Iterator[tuple[str, Key]]:
    """Every key, also with the algorithm for which it is not registered."""
    for key in islice(ring, _MOST_KEYS_OF_OTHERS):
        yield "shared_key" if key.label == "shared" else "token", key
        yield "algorithm", replace(key, algorithm="sha256" if key.algorithm == "sha1" else "sha1")


def _forms(params: Params) -> Iterator[tuple[str, Params]]:
    """The form as it may have been before blank fields were dropped or its text was
    trimmed."""
    often_blank = (*_FROM, *_TO, "Body")
    for names in (often_blank, _FROM + _TO, _FROM, _TO, *[(name,) for name in often_blank]):
        blanks = {name: (b"",) for name in names if name not in params}
        if blanks:
            yield "blanks", {**params, **blanks}
    body = next(iter(params.get("Body", ())), b"")
    for before, after in _TRIMMED:
        yield "whitespace", {**params, "Body": (before + body + after,)}
    with_bare_breaks = body.replace(b"\r\n", b"\n")
    for changed in (with_bare_breaks, with_bare_breaks.replace(b"\n", b"\r\n")):
        yield "whitespace", {**params, "Body": (changed,)}
