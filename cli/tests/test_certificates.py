"""Certificates of a local edge: made once, renewed in time, the owner's own where given; whom clients then trust."""

import ssl

import pytest
from serin_cli.certificates import generated, given
from serin_cli.errors import UsageProblem
from serin_mesh.authority import Authority


def test_a_certificate_is_made_once(tmp_path):
    """The same files at the next start, valid for this machine; the bundle trusts it and what was trusted before."""
    made = generated(tmp_path)
    before = made.certificate.read_bytes()
    assert generated(tmp_path).certificate.read_bytes() == before
    assert made.host == "127.0.0.1"
    trusted = ssl.create_default_context(cafile=str(made.trust)).get_ca_certs()
    assert len(trusted) > 20
    assert any("serin local authority" in str(each["subject"]) for each in trusted)
    assert made.key.stat().st_mode & 0o077 == 0


def test_a_certificate_that_ends_soon_is_renewed(tmp_path):
    """Within its last month a start makes another, by the same authority."""
    authority = Authority.create()
    authority.save(tmp_path)
    authority.issue("edge", tmp_path / "edge", days=20)
    before = (tmp_path / "edge" / "cert.pem").read_bytes()
    assert generated(tmp_path).certificate.read_bytes() != before
    assert (tmp_path / "ca.pem").read_bytes() == authority.pem


def test_a_given_certificate_is_used_where_it_is(tmp_path):
    """Its own files are shown, so that what renews them reaches the edge; its first name is the edge's."""
    Authority.create().issue("edge", tmp_path / "mine", hosts=["ai.example.org"])
    mine = given(tmp_path / "mine" / "cert.pem", tmp_path / "mine" / "key.pem", tmp_path / "certs")
    assert mine.certificate == tmp_path / "mine" / "cert.pem"
    assert mine.certificate.read_text() in mine.trust.read_text()
    assert mine.host == "127.0.0.1"


@pytest.mark.parametrize("wrong", ["cert.pem", "key.pem", "both"])
def test_a_given_certificate_must_be_one(wrong, tmp_path):
    """A missing file and a key of another certificate are refused with the flag, the file and what is accepted."""
    authority = Authority.create()
    authority.issue("edge", tmp_path)
    if wrong == "both":
        authority.issue("edge", tmp_path / "other")
        (tmp_path / "key.pem").write_bytes((tmp_path / "other" / "key.pem").read_bytes())
    else:
        (tmp_path / wrong).unlink()
    flag = "--edge-cert" if wrong == "cert.pem" else "--edge-key"
    with pytest.raises(UsageProblem, match=f"serin up: {flag}: .*: accepted: PEM files of a certificate and its key"):
        given(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "certs")
