"""What single settings may be. Each function gives a value as it is used, or raises ``ValueError`` with what was expected."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit

PRECISIONS = ("auto", "fp32", "float32", "bf16", "bfloat16", "fp16", "float16", "half", "int8")  # PyTorch is not loaded to know them
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # Source: RFC 9110, section 5.6.2
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def origin(value: str) -> str:
    """An origin as browsers send it: in lower case, without a slash at the end or a port that goes without saying."""
    text = value.strip().rstrip("/").lower()
    if text in ("*", "null"):  # null: of pages that are files
        return text
    scheme, _, host = text.partition("://")
    if not (scheme and host and text.isascii()) or re.search(r"[/?#@*\s]", host):
        raise ValueError(f"expected origins such as https://app.example, or * for all, got {value!r}")
    return text.removesuffix(_DEFAULT_PORTS.get(scheme, ""))


def header_name(value: str) -> str:
    """The name of a header."""
    if not _HEADER.fullmatch(value):
        raise ValueError(f"expected the name of a header such as x-request-id, got {value!r}")
    return value


def proxy(value: str) -> str:
    """The address of a proxy, or a network of such; ``*`` for all."""
    if value != "*":
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise ValueError(f"expected addresses such as 10.0.0.5, networks such as 10.0.0.0/8, or *, got {value!r}") from None
    return value


def address(value: str) -> str:
    """The address of a server, with or without a path."""
    parts = urlsplit(value)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or re.search(r"\s", value):
        raise ValueError(f"expected an address such as https://vision.example, got {value!r}")
    return value


def folder(value: Path) -> Path:
    """A folder that is there."""
    if not value.is_dir():
        raise ValueError(f"expected a folder, and there is none at {value}")
    return value


def device(value: str) -> str:
    """The name of a device; whether this machine has it is known when a model is loaded."""
    if not _DEVICE.fullmatch(value):
        raise ValueError(f"expected auto, cpu, cuda, cuda:0 … or mps, got {value!r}")
    return value


def precision(value: str) -> str:
    """The name of a precision; whether the device has it is known when a model is loaded."""
    if value not in PRECISIONS:
        raise ValueError(f"expected one of {', '.join(PRECISIONS)}, got {value!r}")
    return value
