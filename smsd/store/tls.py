"""TLS to memcached: what smsd trusts, and what went wrong when it does not.

It must never connect without verifying the certificate and the host's name: that is
what TLS to a store is for.
"""

import ssl

_PROBLEMS = {
    9: "its certificate is not valid yet",  # the numbers are OpenSSL's X509_V_ERR_…
    10: "its certificate has expired",
    18: "its certificate is self-signed: SMSD_STORE_CA must name it",
    19: "its certificate was issued by an unknown authority: SMSD_STORE_CA must name that",
    20: "its certificate was issued by an unknown authority: SMSD_STORE_CA must name that",
    62: "its certificate is for another name than SMSD_STORE gives",
    64: "its certificate is not for this address: SMSD_STORE must give its name",
}


def client_context(authorities: str | None) -> ssl.SSLContext:
    """Make the context for connections to nodes. It verifies certificates and names.

    authorities   PEM text of the certificates to trust; None for the system's
    """
    return ssl.create_default_context(cadata=authorities)


def tls_problem(error: BaseException) -> str | None:
    """Say in words why a TLS connection to a node failed; None if it was not TLS's
    fault.

    For people who check their settings:

        >>> tls_problem(ConnectionRefusedError())
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _PROBLEMS.get(
            error.verify_code, f"its certificate is refused: {error.verify_message}"
        )
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "handshake failed").lower().replace("_", " ")
        return f"the TLS handshake failed ({reason})"
    return None
