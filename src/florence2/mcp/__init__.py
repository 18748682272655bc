"""Florence-2's tasks as tools for AI assistants, by the Model Context Protocol.

In: calls of tools by an assistant's host, over standard input and output or over HTTP on this machine. Out: structured answers with a
readable text, and drawings. ``tools`` has the five tools, ``pictures`` what may be read, ``server`` brings both to the protocol. Stands on
the engine, knows nothing of the server of ``florence2 serve``.
"""
