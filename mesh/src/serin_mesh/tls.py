"""Mutual TLS between rooms: identities, credentials for both sides, new certificates without a restart.

An identity is a certificate with the name ``spiffe://serin/<service>`` and, for callers that check names, the DNS
names ``<service>`` and ``<service>.<model>``. Files in a folder: ``ca.pem`` (one or more authorities), ``cert.pem``,
``key.pem``. Knows nothing about how certificates are made.
"""

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

TRUST_DOMAIN = "spiffe://serin/"


class TlsError(Exception):
    """A certificate folder cannot be used; the message names the file."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What one read of a certificate folder gave."""

    ca: bytes
    cert: bytes
    key: bytes
    stamp: tuple[int, ...]
    """Changes whenever a file does."""


class IdentityFiles:
    """A certificate folder that may change at any time.

    A half-written set is never used: while the files cannot be read, the last good set stays.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = self._read()

    def current(self) -> Identity:
        """The files as they are now."""
        try:
            if self._stamp() != self._last.stamp:
                self._last = self._read()
        except (OSError, TlsError):
            pass  # being replaced right now: the next look finds them
        return self._last

    def _read(self) -> Identity:
        try:
            stamp = self._stamp()
            ca, cert, key = ((self._folder / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem"))
        except OSError as error:
            raise TlsError(f"{error.filename}: {error.strerror}; `serin certs` makes it") from error
        for name, pem in (("ca.pem", ca), ("cert.pem", cert), ("key.pem", key)):
            if b"-----BEGIN " not in pem or b"-----END " not in pem:
                raise TlsError(f"{self._folder / name}: not a PEM file; `serin certs` makes one")
        self._check_pair()
        if self._stamp() != stamp:
            raise TlsError(f"{self._folder}: files are being replaced; try again")
        return Identity(ca, cert, key, stamp)

    def _check_pair(self) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._folder / "cert.pem", self._folder / "key.pem")
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"{self._folder}: cert.pem and key.pem do not belong together: {error}") from error

    def _stamp(self) -> tuple[int, ...]:
        found = [(self._folder / name).stat() for name in ("ca.pem", "cert.pem", "key.pem")]
        return tuple(number for stat in found for number in (stat.st_mtime_ns, stat.st_size, stat.st_ino))


def server_credentials(files: IdentityFiles) -> grpc.ServerCredentials:
    """Credentials of a listener that demands a client certificate and looks for new files at each handshake."""
    served: list[Identity] = [files.current()]

    def configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(identity.key, identity.cert)], identity.ca)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        identity = files.current()
        if identity is served[0]:
            return None
        served[0] = identity
        return configuration(identity)

    first = configuration(served[0])
    # Declared to return a configuration always; None means that nothing changed.
    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=True)  # type: ignore[arg-type]


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    """Credentials of a channel; a channel keeps them, so new files need a new channel."""
    return grpc.ssl_channel_credentials(identity.ca, identity.key, identity.cert)


def peer_service(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """Service that the peer's certificate names, if it names exactly one of ours."""
    names = [name.decode("utf-8", "replace") for name in auth_context.get("peer_spiffe_id", ())]
    services = [name.removeprefix(TRUST_DOMAIN) for name in names if name.startswith(TRUST_DOMAIN)]
    return services[0] if len(services) == 1 and "/" not in services[0] and services[0] else None
