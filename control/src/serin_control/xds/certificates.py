"""TLS sides of Envoy: towards services of the mesh, and towards its own callers.

Certificates are files on Envoy's machine. They are named as secrets, because only those does Envoy read again when
they change. Pure; `xds:///` clients never see this.
"""

from collections.abc import Iterator

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from serin_control.instance import Service
from serin_control.xds.ads import ADS
from serin_control.xds.edge import EdgeSettings

_SOCKET = "envoy.transport_sockets.tls"
_SPIFFE = "spiffe://serin/"
_PUBLIC, _IDENTITY, _TRUST = "public", "identity", "trust"


def make_secrets(settings: EdgeSettings) -> Iterator[tls.Secret]:
    """The files that an Envoy shows to the world, shows to services, and trusts."""
    if settings.public_certificate:
        yield tls.Secret(name=_PUBLIC, tls_certificate=_pair(settings.public_certificate, settings.public_key))
    if folder := settings.mesh_certificates:
        yield tls.Secret(name=_IDENTITY, tls_certificate=_pair(f"{folder}/cert.pem", f"{folder}/key.pem"))
        trust = tls.CertificateValidationContext(
            trusted_ca=core.DataSource(filename=f"{folder}/ca.pem"),
            watched_directory=core.WatchedDirectory(path=folder),
        )
        yield tls.Secret(name=_TRUST, validation_context=trust)


def to_service(service: Service, protocol: str = "h2") -> core.TransportSocket:
    """Mutual TLS to a service: Envoy shows its identity, and takes only that service's.

    ``protocol`` is what is spoken inside (ALPN): ``h2`` or ``http/1.1``.
    """
    name = tls.SubjectAltNameMatcher(
        san_type=tls.SubjectAltNameMatcherSanType.URI, matcher=matcher.StringMatcher(exact=f"{_SPIFFE}{service}")
    )
    trust = tls.CommonTlsContextCombinedCertificateValidationContext(
        default_validation_context=tls.CertificateValidationContext(match_typed_subject_alt_names=[name]),
        validation_context_sds_secret_config=_secret(_TRUST),
    )
    context = tls.UpstreamTlsContext(
        sni=str(service),
        common_tls_context=tls.CommonTlsContext(
            tls_certificate_sds_secret_configs=[_secret(_IDENTITY)],
            combined_validation_context=trust,
            alpn_protocols=[protocol],
        ),
    )
    return core.TransportSocket(name=_SOCKET, typed_config=Any.pack(context))


def from_callers() -> core.TransportSocket:
    """TLS to callers from outside, with the public certificate."""
    context = tls.DownstreamTlsContext(
        common_tls_context=tls.CommonTlsContext(
            tls_certificate_sds_secret_configs=[_secret(_PUBLIC)], alpn_protocols=["h2", "http/1.1"]
        )
    )
    return core.TransportSocket(name=_SOCKET, typed_config=Any.pack(context))


def _secret(name: str) -> tls.SdsSecretConfig:
    return tls.SdsSecretConfig(name=name, sds_config=ADS)


def _pair(certificate: str, key: str) -> tls.TlsCertificate:
    return tls.TlsCertificate(
        certificate_chain=core.DataSource(filename=certificate),
        private_key=core.DataSource(filename=key),
        watched_directory=core.WatchedDirectory(path=certificate.rpartition("/")[0] or "."),
    )
