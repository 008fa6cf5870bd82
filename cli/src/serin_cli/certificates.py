"""Certificates of a local mesh: its authority, the one that its edge shows the world, and whom a client should trust.

Knows files, not who reads them.
"""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import certifi
from cryptography import x509
from serin_mesh.authority import Authority

from serin_cli.errors import UsageProblem
from serin_cli.state_dir import write_private

EDGE_DAYS = 365
RENEW_DAYS = 30  # left, and a start of the mesh makes a new one
NEAREST = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class PublicCertificate:
    """A certificate for the world: its chain and key, and a bundle with which a client trusts it and all others."""

    certificate: Path
    key: Path
    trust: Path

    @property
    def host(self) -> str:
        """The name under which it is valid on this machine: the address itself if it may be, else its first."""
        names = _names(self.certificate)
        near = [name for name in NEAREST if name in names]
        return (near or [name for name in names if not name.startswith("*")] or list(NEAREST))[0]


def authority_in(folder: Path) -> tuple[Authority, bool]:
    """The authority of a folder, and whether it was made just now.

    Raises:
        OSError: the folder cannot be read or written.
        ValueError: what is there is damaged.
    """
    if (folder / "ca-key.pem").exists():
        return Authority.load(folder), False
    authority = Authority.create()
    authority.save(folder)
    return authority, True


def generated(folder: Path) -> PublicCertificate:
    """The certificate of a local edge, made by the mesh's own authority unless there is one that lasts.

    Args:
        folder: ``certs`` of the state directory, where ``serin certs`` keeps its authority too.

    Raises:
        OSError, ValueError: as :func:`authority_in`.
    """
    authority, is_new = authority_in(folder)
    edge = folder / "edge"
    if is_new or not _lasts(edge / "cert.pem"):
        authority.issue("edge", edge, days=EDGE_DAYS)
    return _public(edge / "cert.pem", edge / "key.pem", authority.pem.decode(), folder)


def given(certificate: Path, key: Path, folder: Path) -> PublicCertificate:
    """A certificate of the owner's own.

    Args:
        certificate: its chain, leaf first.
        key: its key.
        folder: where the trust bundle goes.

    Raises:
        UsageProblem: a file cannot be read, or the two do not belong together.
    """
    flags = "serin up: --edge-cert" if not certificate.is_file() else "serin up: --edge-key"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
        text = certificate.read_text(encoding="ascii")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        shown = certificate if flags.endswith("cert") else key
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UsageProblem.setting(flags, str(shown), f"PEM files of a certificate and its key ({why})") from error
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _public(certificate.absolute(), key.absolute(), text, folder)


def _public(certificate: Path, key: Path, root: str, folder: Path) -> PublicCertificate:
    trust = folder / "trust.pem"
    write_private(trust, Path(certifi.where()).read_text(encoding="ascii") + "\n" + root)
    return PublicCertificate(certificate, key, trust)


def _lasts(path: Path) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=RENEW_DAYS)


def _names(path: Path) -> list[str]:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*addresses, *names.get_values_for_type(x509.DNSName)]


def _no_password() -> str:
    raise ValueError("the key is encrypted")
