"""TLS to a daemon on another host: what gRPC is given, and a first look that says exactly what is wrong."""

from __future__ import annotations

import socket
import ssl

import grpc

from banger._host import Address, Credentials
from banger.errors import ConnectError, HostError, TlsError

# What the alerts mean by which a daemon refuses a client (RFC 8446, 6.2), as OpenSSL writes them.
_UNTRUSTED = ("TLS_CLIENT_UNTRUSTED", "the daemon does not trust the authority of this certificate")
_CLIENT = {
    "TLSV1_ALERT_UNKNOWN_CA": _UNTRUSTED,
    # Another authority of the same name: the signature is none of its own.
    "TLSV1_ALERT_DECRYPT_ERROR": _UNTRUSTED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ("TLS_CLIENT_EXPIRED", "the daemon finds this certificate expired"),
    "SSLV3_ALERT_CERTIFICATE_REVOKED": ("TLS_CLIENT_REVOKED", "this certificate was revoked"),
}
# X509_V_ERR_*: expired and not yet valid; another name and another address.
_EXPIRED = (9, 10)
_OTHER_NAME = (62, 64)
_SERVER_REMEDY = (
    "Give the authority of the daemon's certificate as `ca` or BANGER_CA, and connect by a name that it is for."
)
_CLIENT_REMEDY = "Use a certificate that the daemon lets in: banger cert issue."
_UNREACHABLE_REMEDY = (
    "Check the host and port (tcp.listen of the daemon's configuration), its firewall, and that bangerd runs there."
)
_NO_TLS_REMEDY = "Check the port: bangerd serves TLS on the addresses of tcp.listen in its configuration."
_TURNED_AWAY_REMEDY = "Try again later; the daemon's limits on connections are in [tcp] of its configuration."


def channel_credentials(shown: Credentials) -> grpc.ChannelCredentials:
    """As gRPC takes them.

    Raises:
        HostError: If a file cannot be read.
    """
    contents = []
    for path in (shown.ca, shown.key, shown.cert):
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise _of_file(str(path), error) from error
    return grpc.ssl_channel_credentials(*contents)


def _of_file(path: str, error: OSError) -> HostError:
    return HostError(
        f"`{path}` cannot be used: {error.strerror or error}",
        remedy="Give PEM files of a certificate, its key and the daemon's authority.",
    )


def look_at(address: Address, timeout: float) -> None:
    """Connects once, waits for the daemon's first word, and hangs up: in TLS 1.3 a client that is refused learns it
    only then. Connects once more where that was closed without a word, as of somebody who was let in just before the
    daemon had word of a revocation: the next one is told.

    Raises:
        ConnectError: If nobody answers there; as a `TlsError` if the two sides do not know each other.
        HostError: If a file cannot be used.
    """
    try:
        _look_once(address, timeout)
    except TlsError as error:
        if error.reason != "TLS_TURNED_AWAY":
            raise
        _look_once(address, timeout)


def _look_once(address: Address, timeout: float) -> None:
    shown = address.credentials
    assert shown is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(cafile=shown.ca)
        context.load_cert_chain(shown.cert, shown.key)
    except OSError as error:
        raise _of_file(f"{shown.ca}`, `{shown.cert}` or `{shown.key}", error) from error
    try:
        with socket.create_connection((address.host, address.port), timeout) as plain:
            plain.settimeout(timeout)
            with context.wrap_socket(plain, server_hostname=address.host) as secured:
                if not secured.recv(1):
                    raise _tls(address, "TLS_TURNED_AWAY", "the connection was closed", _TURNED_AWAY_REMEDY)
    except ssl.SSLError as error:
        raise _judge(address, error) from error
    except ConnectionResetError as error:
        raise _tls(address, "TLS_TURNED_AWAY", "the connection was closed", _TURNED_AWAY_REMEDY) from error
    except OSError as error:
        raise unreachable(address, error) from error


def unreachable(address: Address, error: OSError | None) -> ConnectError:
    """Why nobody answered."""
    why = f": {error.strerror or error}" if error is not None else " in time"
    made = ConnectError(
        f"could not connect to bangerd at {address}{why}",
        remedy=_UNREACHABLE_REMEDY,
    )
    made.metadata = {"host": str(address)}
    return made


def _judge(address: Address, error: ssl.SSLError) -> TlsError:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            reason, problem = "TLS_SERVER_NAME_WRONG", "the daemon's certificate is for another name"
        elif error.verify_code in _EXPIRED:
            reason, problem = "TLS_SERVER_EXPIRED", "the daemon's certificate has expired or is not yet valid"
        else:
            reason, problem = "TLS_SERVER_UNTRUSTED", "the daemon's certificate is of no known authority"
        return _tls(address, reason, problem, _SERVER_REMEDY)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _tls(address, "TLS_TURNED_AWAY", "the connection was closed", _TURNED_AWAY_REMEDY)
    name = error.reason or ""
    if name in _CLIENT:
        return _tls(address, *_CLIENT[name], _CLIENT_REMEDY)
    if "ALERT" in name and "CERTIFICATE" in name:
        return _tls(address, "TLS_CLIENT_REFUSED", "the daemon refuses this certificate", _CLIENT_REMEDY)
    return _tls(address, "TLS_NOT_SPOKEN", "what answers there speaks no TLS 1.3", _NO_TLS_REMEDY)


def _tls(address: Address, reason: str, problem: str, remedy: str) -> TlsError:
    made = TlsError(f"could not connect to bangerd at {address}: {problem}", remedy=remedy)
    made.reason = reason
    made.retryable = reason == "TLS_TURNED_AWAY"
    made.metadata = {"host": str(address)}
    return made
