"""The certificate authorities that hosts are checked by, and what to do where none of them vouches for a host.

The system's own store of authorities counts, or the file or folder that ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names. Out: an SSL
context, and for a connection that failed a sentence on what would help. Knows nothing of requests.
"""

from __future__ import annotations

import ssl
from functools import lru_cache

# OpenSSL's codes for "issued by nobody that is known"; others stand for a wrong name, a wrong time and the like.
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
_HINT = (
    "no authority that this machine trusts vouches for the host's certificate: install the system's CA certificates (ca-certificates) "
    "or name the authority's file in SSL_CERT_FILE"
)


@lru_cache(maxsize=1)
def certificates() -> ssl.SSLContext:
    """What hosts are checked by; reading it takes longer than many a call."""
    import httpx2

    return httpx2.create_ssl_context()


def certificate_hint(error: BaseException | None) -> str | None:
    """What would help a connection that failed because of whom the host's certificate is from; None where that was not why."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            # The stores of macOS and Windows give no code.
            return _HINT if getattr(error, "verify_code", None) in (None, *_UNKNOWN_ISSUER) else None
        error = error.__cause__ or error.__context__
    return None
