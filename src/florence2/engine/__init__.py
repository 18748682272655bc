"""The engine: images and prompts in, results out, many requests at a time.

``engine.py`` is what the rest of the world sees; the other files are one job each: pixels, search, the requests, the batch
that takes steps together, the scheduler that decides who takes part. Knows nothing of HTTP.
"""

from florence2.engine.threads import import_torch

import_torch()
