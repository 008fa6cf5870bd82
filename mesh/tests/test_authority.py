"""The local authority: identities with the right names, and keys that nobody else can read."""

import datetime

from cryptography import x509
from serin_mesh.authority import Authority


def names_of(folder) -> list[str]:
    """Alternative names of an identity's certificate."""
    certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def test_an_identity_has_its_names(tmp_path) -> None:
    """The SPIFFE name first, then every name that callers dial."""
    Authority.create().issue("worker", tmp_path, models=["small", "large"], hosts=["gpu-1", "10.0.0.5", "::1"])
    assert names_of(tmp_path) == [
        "spiffe://serin/worker",
        *("worker", "worker.small", "worker.large", "localhost", "127.0.0.1", "gpu-1", "10.0.0.5", "::1"),
    ]


def test_a_saved_authority_issues_again(tmp_path) -> None:
    """Loaded again it signs identities that the first one's certificate verifies."""
    first = Authority.create()
    first.save(tmp_path / "ca")
    Authority.load(tmp_path / "ca").issue("cache", tmp_path / "cache")
    certificate = x509.load_pem_x509_certificate((tmp_path / "cache" / "cert.pem").read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(first.pem))
    assert (tmp_path / "cache" / "ca.pem").read_bytes() == first.pem


def test_keys_are_for_their_owner_alone(tmp_path) -> None:
    """No file of a key can be read by others."""
    authority = Authority.create()
    authority.save(tmp_path)
    authority.issue("worker", tmp_path)
    for name in ("ca-key.pem", "key.pem"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_an_identity_does_not_outlive_what_was_asked(tmp_path) -> None:
    """Validity begins a little ago, for clocks that are late, and ends in time."""
    Authority.create().issue("worker", tmp_path, days=7)
    certificate = x509.load_pem_x509_certificate((tmp_path / "cert.pem").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    assert now - datetime.timedelta(minutes=10) < certificate.not_valid_before_utc < now
    left = certificate.not_valid_after_utc - now
    assert datetime.timedelta(days=6, hours=23) < left <= datetime.timedelta(days=7)
