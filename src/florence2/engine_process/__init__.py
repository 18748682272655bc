"""An engine in a process of its own: what kills or hangs it does not take the server along.

``EngineProcess`` starts the process, watches it and starts it again; ``RemoteEngine`` is one of its models, with the methods of ``Engine``
that a server needs. Only the child imports torch: requests travel as prompts with their ids and as pictures of the model's size, in shared
memory. Knows nothing of HTTP.
"""
