"""The certificate authorities that hosts are verified with, and advice for a failed verification.

The authorities are those of the system, or of the file or folder that ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names. Out: an SSL context,
and for a failed connection a sentence of advice. Knows nothing of requests.
"""

from __future__ import annotations

import ssl
from functools import lru_cache

# OpenSSL's codes for an unknown issuer; others stand for a wrong name, an expired certificate and so on.
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
_HINT = (
    "no authority that this machine trusts vouches for the host's certificate: install the system's CA certificates (ca-certificates) "
    "or name the authority's file in SSL_CERT_FILE"
)


@lru_cache(maxsize=1)
def certificates() -> ssl.SSLContext:
    """The SSL context for all connections; cached, because reading the authorities is slow."""
    import httpx2

    return httpx2.create_ssl_context()


def certificate_hint(error: BaseException | None) -> str | None:
    """The advice for a connection that failed because the issuer of the host's certificate is unknown; None for other failures."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            # The certificate stores of macOS and Windows return no code.
            return _HINT if getattr(error, "verify_code", None) in (None, *_UNKNOWN_ISSUER) else None
        error = error.__cause__ or error.__context__
    return None
