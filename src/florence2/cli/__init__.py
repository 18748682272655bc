"""The command line ``florence2``: ``app`` knows the commands, and each command's file is a few lines that call a room."""

from florence2.cli.app import app, main

__all__ = ["app", "main"]
