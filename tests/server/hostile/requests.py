"""Whole requests, byte by byte: bodies that are made to cost, fields that are none, and HTTP that proxies and servers read differently."""

from __future__ import annotations

import gzip
import json
from functools import cache

from tests.server.fakes import body, image_bytes
from tests.server.hostile.cases import Case
from tests.server.hostile.files import MB, exploit

FRAMING, HEADERS, INVALID, FORM = "bad_framing", "headers_too_large", "validation_failed", "multipart/form-data; boundary=x"
LMM = "POST /infer/lmm"


def message(start: str, content: bytes = b"", *lines: str, length: int | None = None, kind: str = "application/json") -> bytes:
    """A request with a body; ``start`` is its method and path."""
    length = len(content) if length is None else length
    head = [f"{start} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {length}"]
    return ("\r\n".join([*head, *lines]) + "\r\n\r\n").encode("latin-1") + content


def get(path: str, *lines: str) -> bytes:
    """A request without a body."""
    return ("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines]) + "\r\n\r\n").encode("latin-1")


def asking(**fields: object) -> bytes:
    """A question with these fields."""
    return message(LMM, json.dumps(body(**fields)).encode())


def written(name: str, value: str) -> bytes:
    """A question with a field written as given."""
    return message(LMM, f'{json.dumps(body())[:-1]}, "{name}": {value}}}'.encode())


def field(name: str, value: bytes, more: str = "") -> bytes:
    """A part of a form."""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A question as a form."""
    return message(f"{LMM}/florence-2-base", b"".join(parts) + b"--x--\r\n", kind=FORM)


@cache
def in_chunks(size: int, count: int) -> bytes:
    """A body in so many chunks."""
    head = b"POST /infer/lmm HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + (b"%x\r\n" % size + b"[" * size + b"\r\n") * count + b"0\r\n\r\n"


IMAGE = field("image", image_bytes(), '; filename="a.png"')
PROMPT = field("prompt", b"<OD>")
CHUNKED = "Transfer-Encoding: chunked"
NUMBER = "num_beams"

BODIES = [
    Case("a body of 100 MB is announced", message(LMM, length=100 * MB), 413, "body_too_large", "at most 20971520 bytes are taken"),
    Case("a body of 10^18 bytes is announced", message(LMM, length=10**18), 413, "body_too_large", "at most 20971520 bytes"),
    Case("a body of 100 MB comes unannounced", in_chunks(MB, 100), 413, "body_too_large", "at most 20971520 bytes"),
    Case("20,000 chunks of a byte", in_chunks(1, 20_000), 400, FRAMING, "tiny chunks"),
    Case("no body", message(LMM), 422, INVALID, "the body is no JSON"),
    Case("100,000 lists in lists", message(LMM, b"[" * 100_000), 422, INVALID, "recursion limit"),
    Case("100,000 objects in objects", message(LMM, b'{"a":' * 100_000), 422, INVALID, "brackets, commas and colons"),
    Case("a million values", message(LMM, b"[" + b"0," * MB), 422, INVALID, "more than 100000 brackets"),
    Case("bytes that are no UTF-8", message(LMM, b'{"prompt": "\xff\xfe"}'), 422, INVALID, "the body is no JSON"),
    Case("UTF-16", message(LMM, '{"prompt": "x"}'.encode("utf-16")), 422, INVALID, "the body is no JSON"),
    Case("a list", message(LMM, b"[]"), 422, INVALID, "must be a JSON object"),
    Case("null", message(LMM, b"null"), 422, INVALID, "must be a JSON object"),
    Case("a compressed body", message(LMM, gzip.compress(bytes(MB)), "Content-Encoding: gzip"), 415, says="must not be compressed"),
    Case("a body compressed twice", message(LMM, b"x", "Content-Encoding: br, gzip"), 415, says="must not be compressed"),
    Case("no type", message(LMM, b"{}", kind=""), 415, says="must be application/json"),
    Case("another type", message(LMM, b"{}", kind="text/plain"), 415, says="got text/plain"),
    Case("a type of XML", message(LMM, b"<!DOCTYPE a [<!ENTITY b 'c'>]>", kind="application/xml"), 415, says="application/json"),
    Case("a pickle", message(LMM, exploit("/tmp/florence2-was-unpickled"), kind="application/x-pickle"), 415),
]
FIELDS = [
    Case("a key twice: the last counts", written("prompt", "7"), 422, INVALID, "prompt"),
    Case("NaN", written(NUMBER, "NaN"), 422, INVALID, NUMBER),
    Case("Infinity", written(NUMBER, "Infinity"), 422, INVALID, NUMBER),
    Case("a number with an exponent of 10^9", written(NUMBER, "1e1000000000"), 422, INVALID, NUMBER),
    Case("a number of 4,000 digits", written(NUMBER, "9" * 4000), 400, "invalid_option", "num_beams must be an integer from 1 to 16"),
    Case("a number of 5,000,000 digits", written(NUMBER, "9" * 5 * MB), 422, INVALID),
    Case("a number in Arabic digits", asking(num_beams="٣"), 422, INVALID, NUMBER),
    Case("a number in circled digits", asking(num_beams="①"), 422, INVALID, NUMBER),
    Case("10^18 beams", asking(num_beams=10**18), 400, "invalid_option", "num_beams"),
    Case("10^30 beams", asking(num_beams=10**30), 400, "invalid_option", "from 1 to 16"),
    Case("-1 beams", asking(num_beams=-1), 400, "invalid_option", "num_beams"),
    Case("10^18 tokens", asking(max_new_tokens=10**18), 400, "invalid_option", "max_new_tokens"),
    Case("an n-gram of 10^18", asking(no_repeat_ngram_size=10**18), 200),
    Case("a region of NaN", written("region", "[NaN, 0, 1, 1]"), 400, says="region"),
    Case("a region of infinities", written("region", "[1e999, 0, 1, 1]"), 400, says="region"),
    Case("a region of 10,000 numbers", asking(region=[0] * 10_000), 422, INVALID, "region"),
    Case("10^9 tiles", asking(prompt="<OD>", tiles="100000x10000"), 400, says="tiles"),
    Case("tiles of a pixel", asking(prompt="<OD>", tiles=1), 400, says="tiles"),
    Case("an overlap of NaN", message(LMM, f'{json.dumps(body(prompt="<OD>", tiles="2x2"))[:-1]}, "tile_overlap": NaN}}'.encode()), 400),
    Case("100 prompts", asking(prompts=["<OD>"] * 100), 413, "too_many_items", "at most 16 prompts"),
    Case("100 images", asking(image=[{}] * 100), 413, "too_many_items", "at most 64 images"),
    Case("a prompt of 1,000,000 characters", asking(prompt="x " * 500_000), 400, "prompt_too_long", "8192"),
    Case("a prompt of 8,000 words", asking(prompt="a " * 4000), 400, "prompt_too_long", "tokens"),
    Case("a prompt of dots", asking(prompt="a" + "." * 8000 + "a"), 400, "prompt_too_long"),
    Case("a prompt of a million tags", asking(prompt="<OD>" * 250_000), 400),
    Case("a prompt of the model's own tokens", asking(prompt="<s></s><pad>"), 400, "invalid_prompt"),
    Case("a tag that there is not", asking(prompt="<EXEC>"), 400, "unknown_task", "EXEC"),
    Case("half a surrogate in a prompt", written("prompt", '"\\ud800"'), 422, INVALID),
    Case("half a surrogate in an id", written("id", '"\\udfff"'), 422, INVALID),
    Case("control characters in a prompt", asking(prompt="\0\x01\x1b[2J\x7f"), 200),
    Case("right-to-left marks in a prompt", asking(prompt="\u202e\u2066abc\u200f"), 200),
    Case("control characters in an id", asking(id="a\r\nSet-Cookie: b=c\0"), 200),
    Case("an id of 1,000,000 characters", asking(id="x" * MB), 422, INVALID, "id"),
    Case("a model that is a path", asking(model_id="../../etc/passwd"), 404, "model_not_found"),
    Case("a model that is an absolute path", asking(model_id="/etc/passwd"), 404, "model_not_found"),
    Case("a model that is a URL", asking(model_id="https://169.254.169.254/x"), 404, "model_not_found"),
    Case("a model with a null byte", asking(model_id="florence-2-base\0"), 404, "model_not_found"),
    Case("an image that is a path", asking(image={"type": "file", "value": "/etc/passwd"}), 400, "invalid_image", "disabled"),
    Case("an image that is a pickle", asking(image={"type": "numpy", "value": "gASV"}), 400, "invalid_image", "a pickle"),
    Case("an image that is an object", asking(image={"type": "numpy_object", "value": {}}), 400, "invalid_image", "a pickle"),
    Case("base64 with junk", asking(image={"type": "base64", "value": "iVBORw0K!!!!"}), 400, "invalid_image", "Malformed base64"),
    Case("base64 with other letters", asking(image={"type": "base64", "value": "ïVBORw0K"}), 400, "invalid_image", "no base64"),
    Case("base64 of a number", asking(image={"type": "base64", "value": 7}), 400, "invalid_image", "got a number"),
    Case("a data URI with text", asking(image={"type": "url", "value": "data:text/plain,hello"}), 400, "invalid_image"),
    Case("a data URI with SVG", asking(image={"type": "url", "value": "data:image/svg+xml,%3Csvg/%3E"}), 400, "invalid_image"),
]
FORMS = [
    Case("100,000 parts", form(*[field("a", b"b")] * 100_000, IMAGE), 400, "invalid_request", "Too many fields"),
    Case("100,000 files", form(*[field("image", b"", '; filename="a"')] * 100_000), 413, "too_many_items", "at most 64 images"),
    Case("a part with a head of 10 MB", form(b"--x\r\nA: " + b"a" * 10 * MB + b"\r\n\r\n\r\n"), 400, "invalid_request"),
    Case("a part with a million lines of head", form(b"--x\r\n" + b"A: b\r\n" * MB + b"\r\n\r\n"), 400, "invalid_request"),
    Case("a field of 10 MB", form(field("prompt", b"x" * 10 * MB), IMAGE), 422, INVALID, "a field of the form has at most"),
    Case("a form without end", message(f"{LMM}/florence-2-base", IMAGE, kind=FORM), 422, INVALID),
    Case("a form without a boundary", message(f"{LMM}/florence-2-base", IMAGE, kind="multipart/form-data"), 400, "invalid_request"),
    Case("a form with a charset that there is not", message(LMM, IMAGE + b"--x--", kind=f"{FORM}; charset=none"), 422, INVALID),
    Case("a form with a path as its file's name", form(PROMPT, field("image", b"x", '; filename="../../x"')), 400, "invalid_image"),
    Case("a region of brackets", form(field("prompt", b"<REGION_TO_OCR>"), field("region", b"[" * 99_999), IMAGE), 422, INVALID, "region"),
    Case("a form that names its key 4,000 times", form(b'name="api_key"\r\n' * 4000), 400, "invalid_request"),
]
PATHS = [
    Case("two slashes", get("//healthz"), 200),
    Case("up and up", get("/docs/assets/../../../../etc/passwd"), 404, "not_found"),
    Case("up and up, escaped", get("/docs/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd"), 404, "not_found"),
    Case("up and up, escaped twice", get("/docs/assets/%252e%252e/%252e%252e/etc/passwd"), 404, "not_found"),
    Case("an absolute path behind the assets", get("/docs/assets//etc/passwd"), 404, "not_found"),
    Case("an absolute path behind the page's files", get("/playground/assets//etc/passwd"), 404, "not_found"),
    Case("backslashes", get("/docs/assets/..\\..\\etc\\passwd"), 404, "not_found"),
    Case("an escaped null byte", get("/docs/assets/swagger-ui.css%00.png"), 404, "not_found"),
    Case("a path that is no UTF-8", get("/%ff%fe"), 404, "not_found"),
    Case("a whole address as path", get("http://169.254.169.254/healthz"), 200),  # this server's own: nothing is fetched
    Case("another method", message("DELETE /infer/lmm"), 405, "method_not_allowed", "POST"),
    Case("an invented method", message("BREW /infer/lmm"), 405, "method_not_allowed"),
    Case("TRACE", get("/").replace(b"GET", b"TRACE"), 405, "method_not_allowed"),
    Case("CONNECT", get("169.254.169.254:80").replace(b"GET", b"CONNECT"), 404, "not_found"),
    Case("a header's end in the query", get("/none?a=%0d%0aSet-Cookie:%20a=b"), 404, "not_found"),
    Case("a header's end in the request's id", get("/none", "X-Request-Id: a%0d%0aSet-Cookie: b=c"), 404, "not_found"),
    Case("a host that is another's", get("/none").replace(b"localhost", b"evil.example"), 403, "origin_refused", "evil.example"),
    Case("a page of another site", message(LMM, b"{}", "Origin: https://evil.example"), 403, "origin_refused", "evil.example"),
]
HTTP = [
    Case("10,000 headers", get("/", *["a: b"] * 10_000), 431, HEADERS, "32768 bytes"),
    Case("200 headers", get("/", *["a: b"] * 200), 431, HEADERS, "at most 100 headers"),
    Case("a header of 1 MB", get("/", "a: " + "b" * MB), 431, HEADERS, "32768 bytes"),
    Case("a path of 1 MB", get("/" + "a" * MB), 431, HEADERS, "32768 bytes"),
    Case("a length and chunks", message(LMM, b"0\r\n\r\n", CHUNKED), 400, FRAMING, "Content-Length"),
    Case("two lengths", message(LMM, b"xx", "Content-Length: 3"), 400, FRAMING),
    Case("two lengths in one line", message(LMM, b"", "Content-Length: 0, 5"), 400, FRAMING),
    Case("a length below zero", message(LMM, length=-1), 400, FRAMING),
    Case("a length with a sign", message(LMM).replace(b"Length: 0", b"Length: +0"), 400, FRAMING),
    Case("a length in hexadecimal", message(LMM).replace(b"Length: 0", b"Length: 0x5"), 400, FRAMING),
    Case("an encoding that is none", message(LMM).replace(b"Content-Length: 0", b"Transfer-Encoding: gzip, chunked"), 400, FRAMING),
    Case("an encoding with a tab", message(LMM).replace(b"Content-Length: 0", b"Transfer-Encoding:\x0bchunked"), 400, FRAMING),
    Case("chunks in HTTP/1.0", b"POST /infer/lmm HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, FRAMING),
    Case("a chunk whose length is no number", in_chunks(1, 1).replace(b"\r\n\r\n1\r\n", b"\r\n\r\nzz\r\n"), 400, FRAMING),
    Case("a line that goes on in the next", get("/", "a: b", " c"), 200),
    Case("a blank before the colon", get("/", "Content-Length : 5"), 400, FRAMING),
    Case("a header without a colon", get("/", "abc"), 400, FRAMING),
    Case("a header with a null byte", get("/", "a: \0"), 400, FRAMING),
    Case("no host", b"GET / HTTP/1.1\r\n\r\n", 400, FRAMING),
    Case("two hosts", get("/", "Host: evil.example"), 400, FRAMING),
    Case("HTTP/0.9", b"GET /\r\n\r\n", 400, FRAMING, "no HTTP/1.1 request"),
    Case("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, FRAMING, "no HTTP/1.1 request"),
    Case("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400, FRAMING),
    Case("a greeting of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n", 400, FRAMING),
    Case("a greeting of SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400, FRAMING),
    Case("noise", bytes(range(256)) * 4 + b"\r\n\r\n", 400, FRAMING),
    Case("line ends of LF alone", b"GET /none HTTP/1.1\nHost: localhost\n\n", 404, "not_found"),
]

TABLE = [*BODIES, *FIELDS, *FORMS, *PATHS, *HTTP]
