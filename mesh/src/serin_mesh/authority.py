"""A local certificate authority for a mesh: makes the authority and an identity for each service.

For a mesh of one owner; where an organization has its own authority, use that. Knows nothing about who reads the
files.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from serin_mesh.tls import TRUST_DOMAIN

AUTHORITY_DAYS = 3650
CLOCK_SKEW = datetime.timedelta(minutes=5)


class Authority:
    """A key that signs identities, with its certificate."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, name: str = "serin local authority") -> "Authority":
        """A new authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, folder: Path) -> "Authority":
        """The authority that :meth:`save` wrote.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file is damaged.
        """
        key = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{folder / 'ca-key.pem'}: not an elliptic curve key")
        return cls(x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()), key)

    @property
    def pem(self) -> bytes:
        """Its certificate, for ``ca.pem``."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def save(self, folder: Path) -> None:
        """Write ``ca.pem`` and ``ca-key.pem``; the key is readable by its owner alone and belongs on no server."""
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "ca-key.pem", _key_pem(self._key))
        _write(folder / "ca.pem", self.pem)

    def issue(
        self,
        service: str,
        folder: Path,
        *,
        models: Sequence[str] = (),
        hosts: Sequence[str] = (),
        days: int = 90,
    ) -> None:
        """Write an identity: ``ca.pem``, ``cert.pem`` and ``key.pem``, each replaced whole.

        Args:
            service: who it is, one of the mesh's services or ``cli``; peers refuse names with a slash.
            folder: where to write it.
            models: models that the service serves, for the names ``<service>.<model>``.
            hosts: further DNS names and IP addresses that callers dial.
            days: how long it is valid.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)])
        dialled = dict.fromkeys(
            (service, *(f"{service}.{model}" for model in models), "localhost", "127.0.0.1", *hosts)
        )
        names = [x509.UniformResourceIdentifier(TRUST_DOMAIN + service), *map(_host_name, dialled)]
        certificate = (
            _builder(subject, self._certificate.subject, key.public_key(), days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "ca.pem", self.pem)
        _write(folder / "key.pem", _key_pem(key))
        _write(folder / "cert.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    """Replace a file whole; nobody else may read it."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    new.replace(path)
