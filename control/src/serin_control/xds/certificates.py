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
            tls_certificates=[_certificate(folder)], validation_context=trust, alpn_protocols=[protocol]
        ),
    )
    return core.TransportSocket(name=_SOCKET, typed_config=Any.pack(context))


def from_callers(folder: str) -> core.TransportSocket:
    """TLS to callers from outside, with the certificate in ``folder`` (``cert.pem``, ``key.pem``)."""
    context = tls.DownstreamTlsContext(
        common_tls_context=tls.CommonTlsContext(
            tls_certificates=[_certificate(folder)], alpn_protocols=["h2", "http/1.1"]
        )
    )
    return core.TransportSocket(name=_SOCKET, typed_config=Any.pack(context))


def _certificate(folder: str) -> tls.TlsCertificate:
    return tls.TlsCertificate(
        certificate_chain=core.DataSource(filename=f"{folder}/cert.pem"),
        private_key=core.DataSource(filename=f"{folder}/key.pem"),
        watched_directory=core.WatchedDirectory(path=folder),
    )
