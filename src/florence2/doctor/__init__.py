"""What this machine runs with and why: its processor, PyTorch, the compiled routines, models, and how fast an image is answered.

``examine`` gathers it. Each part works where another is broken, without a network, and without PyTorch.
"""
