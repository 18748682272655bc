"""Blocks about the server: its errors, settings and metrics, each as the module that knows it writes it.

Out: Markdown. The server's packages are imported by the block that needs them.
"""

from __future__ import annotations


def server_errors() -> str:
    """Every error that the server answers with."""
    from florence2.server.errors import as_markdown

    return as_markdown()


def server_settings() -> str:
    """Every setting of the server."""
    from florence2.server.settings_report import settings_table

    return settings_table()


def server_profiles() -> str:
    """What each profile of the server sets."""
    from florence2.server.settings_report import profiles_table

    return profiles_table()


def cluster_fields() -> str:
    """Every field of ``cluster.yaml``."""
    from florence2.cluster.config_file import fields_table

    return fields_table()


def openai_arguments() -> str:
    """What becomes of each argument of OpenAI's chat completions."""
    from florence2.server.openai.arguments import as_markdown

    return as_markdown()


def server_metrics() -> str:
    """Every metric of the server's own."""
    from florence2.server.http.metric_table import as_markdown

    return as_markdown()


# What is bounded, the setting that says how (or the bound itself, where none does), and the error beyond it.
_BOUNDS = (
    ("bytes of a body, announced or not", "max_body_bytes", "body_too_large"),
    ("bytes of all bodies at once", "max_bodies_bytes", "overloaded"),
    ("time for a body to come in", "body_timeout_s", "body_timed_out"),
    ("the same without a known key", "keyless_body_timeout_s", "body_timed_out"),
    ("time for a head to come in", "header_timeout_s", "body_timed_out"),
    ("lines and bytes of a head, its path and query included", "100 and 32 KiB", "headers_too_large"),
    ("two lengths, a length beside chunks, another version of HTTP", "never", "bad_framing"),
    ("chunks of fewer than 64 bytes", "1,000", "bad_framing"),
    ("brackets, commas and colons of JSON", "100,000", "validation_failed"),
    ("fields and bytes of a field of a form", "100 and 256 KiB", "validation_failed"),
    ("images of a request", "max_images", "too_many_items"),
    ("prompts of a request", "max_prompts", "too_many_items"),
    ("characters of a prompt", "max_prompt_chars", "prompt_too_long"),
    ("pixels of an image, told by its header", "max_image_pixels", "image_too_large"),
    ("processor seconds for decoding one image", "image_decode_s", "image_too_large"),
    ("parts of an image file, kilobytes of its metadata that are read", "262,144 and 1,024", "invalid_image"),
    ("formats that are read, told by the first bytes", "the list in [formats](formats.md)", "invalid_image"),
    ("numpy arrays and pickles", "never read", "invalid_image"),
    ("time for fetching a URL", "url_timeout_s", "invalid_image"),
    ("redirects of a URL, each checked like the first", "max_url_redirects", "invalid_image"),
    ("bytes before a host's response begins", "256 KiB", "invalid_image"),
    ("addresses that are not public", "allow_private_urls", "invalid_image"),
    ("plain http, hosts without a domain", "allow_http_urls", "invalid_image"),
    ("pages of other sites", "allow_origins", "origin_refused"),
    ("how long a client may read nothing of its answer", "answer_timeout_s", ""),
    ("connections", "max_connections", ""),
    ("listening without keys where others can connect", "allow_anonymous", ""),
)
_OTHER_ENDS = {
    "answer_timeout_s": "the connection is closed",
    "max_connections": "the longest idle ones are closed",
    "allow_anonymous": "the server does not start",
}


def server_bounds() -> str:
    """What strangers can send, what bounds it, and what they are told."""
    from florence2.server.errors import TABLE
    from florence2.server.settings import Settings

    lines = ["| What | Bound | Beyond it |", "| --- | --- | --- |"]
    for what, bound, code in _BOUNDS:
        field = Settings.model_fields.get(bound)
        shown = bound if field is None else f"`{bound}` ({_default(field.default)})"
        beyond = f"`{code}` ({TABLE[code].status})" if code else _OTHER_ENDS[bound]
        lines.append(f"| {what} | {shown} | {beyond} |")
    return "\n".join(lines)


def _default(value: object) -> str:
    """A setting's default as people write it."""
    if isinstance(value, bool) or value == []:
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
