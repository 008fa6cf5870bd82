"""TLS sides of Envoy: towards services of the mesh, and towards its own callers.

Certificates are files on Envoy's machine, read again when they change. Pure; `xds:///` clients never see this.
"""

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from serin_control.instance import Service

_SOCKET = "envoy.transport_sockets.tls"
_SPIFFE = "spiffe://serin/"


def to_service(service: Service, folder: str, protocol: str = "h2") -> core.TransportSocket:
    """Mutual TLS to a service: Envoy shows the certificate in ``folder``, and takes only that service's.

    ``protocol`` is what is spoken inside (ALPN): ``h2`` or ``http/1.1``.
    """
    name = tls.SubjectAltNameMatcher(
        san_type=tls.SubjectAltNameMatcherSanType.URI, matcher=matcher.StringMatcher(exact=f"{_SPIFFE}{service}")
    )
    trust = tls.CertificateValidationContext(
        trusted_ca=core.DataSource(filename=f"{folder}/ca.pem"),
        watched_directory=core.WatchedDirectory(path=folder),
        match_typed_subject_alt_names=[name],
    )
    context = tls.UpstreamTlsContext(
        sni=str(service),
        common_tls_context=tls.CommonTlsContext(
            tls_certificates=[_certificate(f"{folder}/cert.pem", f"{folder}/key.pem")],
            validation_context=trust,
            alpn_protocols=[protocol],
        ),
    )
    return core.TransportSocket(name=_SOCKET, typed_config=Any.pack(context))


def from_callers(certificate: str, key: str) -> core.TransportSocket:
    """TLS to callers from outside, with this certificate (a file: its chain, leaf first) and its key."""
    context = tls.DownstreamTlsContext(
        common_tls_context=tls.CommonTlsContext(
            tls_certificates=[_certificate(certificate, key)], alpn_protocols=["h2", "http/1.1"]
        )
    )
    return core.TransportSocket(name=_SOCKET, typed_config=Any.pack(context))


def _certificate(certificate: str, key: str) -> tls.TlsCertificate:
    return tls.TlsCertificate(
        certificate_chain=core.DataSource(filename=certificate),
        private_key=core.DataSource(filename=key),
        watched_directory=core.WatchedDirectory(path=certificate.rpartition("/")[0] or "."),
    )
