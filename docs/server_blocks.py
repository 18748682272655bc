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


def openai_arguments() -> str:
    """What becomes of each argument of OpenAI's chat completions."""
    from florence2.server.openai.arguments import as_markdown

    return as_markdown()


def server_metrics() -> str:
    """Every metric of the server's own."""
    from florence2.server.http.metric_table import as_markdown

    return as_markdown()
