"""`serin certs`: identities that services accept, from an authority that stays."""

from cryptography import x509
from serin_cli.__main__ import main
from serin_mesh.tls import IdentityFiles


def test_identities_name_service_model_and_host(tmp_path):
    """Each service gets its own folder of three files; the worker's certificate names what others dial."""
    arguments = [
        "certs",
        "--out",
        str(tmp_path),
        "--model",
        "small",
        "--host",
        "worker-1.internal",
        "--host",
        "10.0.0.7",
    ]
    assert main(arguments) == 0
    for service in ("gateway", "tokenizer", "worker", "cache", "control"):
        IdentityFiles(tmp_path / service).current()
    certificate = x509.load_pem_x509_certificate((tmp_path / "worker" / "cert.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://serin/worker"]
    assert {"worker", "worker.small", "worker-1.internal"} <= set(names.get_values_for_type(x509.DNSName))
    assert "10.0.0.7" in map(str, names.get_values_for_type(x509.IPAddress))
    assert (tmp_path / "ca-key.pem").stat().st_mode & 0o077 == 0


def test_running_again_renews_under_the_same_authority(tmp_path):
    """The authority stays, the certificate is new."""
    assert main(["certs", "--out", str(tmp_path), "--service", "gateway"]) == 0
    authority, first = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "gateway" / "cert.pem").read_bytes()
    assert main(["certs", "--out", str(tmp_path), "--service", "gateway"]) == 0
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert (tmp_path / "gateway" / "cert.pem").read_bytes() != first
    assert not (tmp_path / "worker").exists()


def test_a_damaged_authority_is_named(tmp_path, capsys):
    """A key that is none is refused in one line, and nothing is overwritten."""
    (tmp_path / "ca-key.pem").write_text("nonsense")
    (tmp_path / "ca.pem").write_text("nonsense")
    assert main(["certs", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path) in err
    assert err.count("\n") == 1
    assert (tmp_path / "ca-key.pem").read_text() == "nonsense"
