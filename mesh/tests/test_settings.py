"""Settings: flags over environment over defaults; what cannot be used ends the process with one line."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError
from serin_mesh.settings import ServiceSettings, SettingsError, is_loopback, load_settings, mesh_secret, parse_settings


class EngineSettings(ServiceSettings):
    """A service's own settings."""

    model: str = Field(description="model to serve")
    precision: Literal["auto", "float32"] = Field("auto", description="number format")
    kv_cache_bytes: int | None = Field(None, gt=0, description="bytes of KV")
    threads: int = Field(1, ge=1, description="compute threads")
    block_size: int = Field(16, ge=16, le=256, multiple_of=16, description="tokens in a block")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", examples=["cpu", "cuda", "cuda:N"], description="device")


def test_flags_beat_environment_beats_defaults() -> None:
    """Each source overrides the one below it, and both flag forms work."""
    environment = {"SERIN_PORT": "1", "SERIN_THREADS": "2", "SERIN_HOST": "::1", "OTHER": "x"}
    got = parse_settings(EngineSettings, ["--model", "small", "--threads=3"], environment)
    assert (got.port, got.threads, got.host, got.precision) == (1, 3, "::1", "auto")


def test_an_empty_variable_is_not_set() -> None:
    """Compose files pass variables on as empty text."""
    got = parse_settings(ServiceSettings, [], {"SERIN_TLS_DIR": "", "SERIN_PORT": "", "SERIN_VERSION": ""})
    assert (got.tls_dir, got.port, got.version) == (None, 0, "v1")


def test_a_switch_needs_no_value() -> None:
    """``--development`` alone means yes; with a value, the value."""
    assert parse_settings(ServiceSettings, ["--development"], {}).development
    assert not parse_settings(ServiceSettings, ["--development=false"], {}).development


def test_settings_are_frozen() -> None:
    """What was read once never changes."""
    with pytest.raises(ValidationError):
        ServiceSettings().port = 1


@pytest.mark.parametrize(
    ("argv", "environment", "line"),
    [
        (["--port", "abc"], {}, "--port: 'abc': accepted: an integer 0..65535"),
        (["--port", "70000"], {}, "--port: '70000': accepted: an integer 0..65535"),
        ([], {"SERIN_PORT": "-1"}, "SERIN_PORT: '-1': accepted: an integer 0..65535"),
        (["--log-format", "xml"], {}, "--log-format: 'xml': accepted: auto, console or json"),
        (["--precision=int3"], {}, "--precision: 'int3': accepted: auto or float32"),
        (["--kv-cache-bytes=0"], {}, "--kv-cache-bytes: '0': accepted: an integer above 0"),
        (["--threads=0"], {}, "--threads: '0': accepted: an integer of 1 or more"),
        (["--development=maybe"], {}, "--development: 'maybe': accepted: true or false"),
        (["--drain-grace-s", "-1"], {}, "--drain-grace-s: '-1': accepted: a number 0..3600"),
        (["--version", "a b"], {}, "--version: 'a b': accepted: text that matches ^[a-zA-Z0-9._-]{1,64}$"),
        (["--block-size", "17"], {}, "--block-size: '17': accepted: an integer 16..256, a multiple of 16"),
        (["--device", "gpu"], {}, "--device: 'gpu': accepted: cpu, cuda or cuda:N"),
        (["--port"], {}, "--port: no value: accepted: an integer 0..65535"),
        (
            ["--host", "0.0.0.0"],
            {},
            "--host: '0.0.0.0': accepted: a loopback address, or any other together with --tls-dir",
        ),
        ([], {"SERIN_HOST": "10.0.0.1"}, "SERIN_HOST: '10.0.0.1': accepted: a loopback address"),
    ],
)
def test_a_bad_value_is_one_line_and_exit_2(argv, environment, line, capsys, monkeypatch) -> None:
    """Program, key, value, what is accepted; nothing else."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        load_settings(EngineSettings, ["--model", "small", *argv], "serin-worker")
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"serin-worker: {line}")
    assert shown.err.count("\n") == 1
    assert not shown.out


def test_an_unknown_flag_is_refused() -> None:
    """Nothing is silently ignored."""
    for flag in ("--prot", "stray", "--prot=3"):
        with pytest.raises(SettingsError, match=r"unknown flag: accepted: --advertise-host, "):
            parse_settings(ServiceSettings, [flag], {})


def test_a_missing_required_value_is_named() -> None:
    """A field without a default must be given."""
    with pytest.raises(SettingsError, match=r"--model: '': accepted: text \(required\)"):
        parse_settings(EngineSettings, [], {})


def test_tls_allows_other_hosts() -> None:
    """Off loopback is fine with certificates."""
    assert parse_settings(ServiceSettings, ["--host", "0.0.0.0", "--tls-dir", "/certs"], {}).tls_dir == Path("/certs")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.example.com", False),
        ("0.0.0.0", False),
        ("", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback_is_this_machine_alone(host: str, loopback: bool) -> None:
    """A name that merely begins like a loopback address is not one."""
    assert is_loopback(host) is loopback


def test_help_shows_every_flag(capsys) -> None:
    """Help names each flag with its meaning and default, and ends well."""
    with pytest.raises(SystemExit) as caught:
        load_settings(EngineSettings, ["--help"], "serin-worker")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, field in EngineSettings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description in text


def test_an_instance_always_has_a_name() -> None:
    """Random names differ, carry the service's name, and a given one is kept."""
    one, other = (load_settings(ServiceSettings, [], "serin-worker").instance for _ in range(2))
    assert one != other
    assert one.startswith("worker-")
    assert load_settings(ServiceSettings, ["--instance", "w1"], "serin-worker").instance == "w1"


def test_mesh_secret_comes_from_a_file(tmp_path) -> None:
    """A secret is read whole; a missing, unreadable or short one says which file."""
    path = tmp_path / "secret"
    path.write_bytes(b"x" * 32 + b"\n")
    assert mesh_secret(ServiceSettings(mesh_secret_file=path)) == b"x" * 32
    path.write_bytes(b"short")
    with pytest.raises(SettingsError, match=r"secret': 5 bytes: accepted: 32"):
        mesh_secret(ServiceSettings(mesh_secret_file=path))
    with pytest.raises(SettingsError, match=r"absent': No such file"):
        mesh_secret(ServiceSettings(mesh_secret_file=tmp_path / "absent"))
    with pytest.raises(SettingsError, match="not set"):
        mesh_secret(ServiceSettings())


def test_a_password_in_a_url_is_not_said_back() -> None:
    """Whatever is wrong with the value."""

    class StoreSettings(ServiceSettings):
        store: str = Field("", pattern="^redis://", description="where it is")

    with pytest.raises(SettingsError, match=r"--store: 'http://…@host/0': accepted: ") as refusal:
        parse_settings(StoreSettings, ["--store", "http://me:my-secret@host/0"], {})
    assert "my-secret" not in str(refusal.value)
