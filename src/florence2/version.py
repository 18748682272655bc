"""The version, in one place.

The distribution's metadata are built from this file, so that a source tree that isn't installed knows its version as well.
Import it from ``florence2``; the package's own modules import it from here.
"""

__version__ = "0.1.0"
