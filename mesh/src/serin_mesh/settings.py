"""Settings of a service: flags over environment over defaults, read once, frozen.

A bad value or an unknown flag ends the process with one line that names the key, the value and what is accepted.
Knows nothing about what the settings are used for.
"""

import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serin_mesh.accepted import accepted_values, first_problem, is_switch

S = TypeVar("S", bound="ServiceSettings")

ENVIRONMENT_PREFIX = "SERIN_"
MIN_SECRET_BYTES = 32
_PASSWORD = re.compile(r"(?<=://)[^/@]*@")
"""Who logs in at a URL, and by which password."""


class SettingsError(Exception):
    """A setting cannot be used; the message is the line to show, without the program's name."""


class ServiceSettings(BaseModel):
    """What every service can be told. Services subclass it with fields of their own.

    Each field is an environment variable ``SERIN_<FIELD>`` and a flag ``--<field-with-dashes>``; ``description`` is
    its help text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    host: str = Field("127.0.0.1", description="address to listen on; off loopback needs --tls-dir")
    port: int = Field(0, ge=0, le=65535, description="gRPC port; 0: any free one")
    advertise_host: str = Field("", description="host name or address that others dial; default: --host")
    metrics_port: int = Field(0, ge=0, le=65535, description="HTTP port of /metrics, /live and /ready; 0: any free one")
    control: str = Field("", description="control planes, host:port, separated by commas")
    instance: str = Field(
        default_factory=lambda: f"instance-{secrets.token_hex(4)}",
        pattern=r"^[a-zA-Z0-9._-]{1,128}$",
        description="name of this instance, unique in the mesh; default: random",
    )
    version: str = Field("v1", pattern=r"^[a-zA-Z0-9._-]{1,64}$", description="version of what this service runs")
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else JSON")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    tls_dir: Path | None = Field(None, description="folder with ca.pem, cert.pem and key.pem; turns mutual TLS on")
    mesh_secret_file: Path | None = Field(None, description="file with the mesh secret, 32 bytes or more")
    otlp_endpoint: str = Field("", description="OTLP/gRPC collector for traces, http://host:port; empty: none")
    drain_grace_s: float = Field(20.0, ge=0, le=3600, description="seconds that running calls get to finish in a drain")
    drain_notice_s: float = Field(
        0.5, ge=0, le=60, description="seconds between saying that it drains and refusing new calls"
    )
    development: bool = Field(False, description="serve gRPC reflection and channelz")

    @model_validator(mode="after")
    def _encrypt_off_loopback(self) -> Self:
        if self.tls_dir is None and not is_loopback(self.host):
            raise ValueError(f"host: {self.host!r}: a loopback address, or any other together with --tls-dir")
        return self

    @property
    def dial_host(self) -> str:
        """Host that others reach this service by."""
        return self.advertise_host or self.host


def is_loopback(host: str) -> bool:
    """Whether a listener on this host can be reached from this machine alone."""
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())


def load_settings(cls: type[S], argv: Sequence[str] | None, program: str) -> S:
    """Read the settings of a process, or end it.

    Args:
        cls: the settings to read.
        argv: flags; None: those of this process.
        program: name to show in messages.

    Raises:
        SystemExit: with status 2 after one line on stderr; with status 0 after ``--help``.
    """
    flags = list(sys.argv[1:] if argv is None else argv)
    if "--help" in flags or "-h" in flags:
        sys.stdout.write(_help(cls, program))
        raise SystemExit(0)
    try:
        settings = parse_settings(cls, flags, os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{program}: {error}\n")
        raise SystemExit(2) from None
    if "instance" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"instance": f"{program.removeprefix('serin-')}-{secrets.token_hex(4)}"})


def parse_settings(cls: type[S], argv: Sequence[str], environment: Mapping[str, str]) -> S:
    """Settings from flags and environment.

    Raises:
        SettingsError: a flag is unknown or a value is not accepted.
    """
    origin: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name in cls.model_fields:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if environment.get(variable):  # set to nothing means not set, as compose files write it
            origin[name], values[name] = variable, environment[variable]
    for name, value in _read_flags(cls, argv).items():
        origin[name], values[name] = _flag(name), value
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        name, value, accepted = first_problem(error, cls)
        shown = _PASSWORD.sub("…@", repr(value))
        raise SettingsError(f"{origin.get(name, _flag(name))}: {shown}: accepted: {accepted}") from error


def mesh_secret(settings: ServiceSettings) -> bytes:
    """The secret that cache namespaces are derived from.

    Raises:
        SettingsError: no file is named, or it cannot be read, or it is too short.
    """
    path = settings.mesh_secret_file
    if path is None:
        raise SettingsError("--mesh-secret-file: not set: accepted: a file with 32 random bytes or more")
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"--mesh-secret-file: '{path}': {error.strerror}: accepted: a readable file") from error
    if len(secret) < MIN_SECRET_BYTES:
        raise SettingsError(
            f"--mesh-secret-file: '{path}': {len(secret)} bytes: accepted: {MIN_SECRET_BYTES} random bytes or more"
        )
    return secret


def _read_flags(cls: type[BaseModel], argv: Sequence[str]) -> dict[str, str]:
    names = {_flag(name): name for name in cls.model_fields}
    values: dict[str, str] = {}
    rest = iter(argv)
    for argument in rest:
        flag, has_value, value = argument.partition("=")
        name = names.get(flag)
        if name is None:
            raise SettingsError(f"{flag}: unknown flag: accepted: {', '.join(sorted(names))}")
        if not has_value:
            if is_switch(cls, name):
                value = "true"
            else:
                following = next(rest, None)
                if following is None:
                    raise SettingsError(f"{flag}: no value: accepted: {accepted_values(cls, name)}")
                value = following
        values[name] = value
    return values


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(cls: type[BaseModel], program: str) -> str:
    lines = [f"usage: {program} [--flag VALUE ...]", "", "Every flag is also an environment variable SERIN_<FLAG>.", ""]
    for name, field in cls.model_fields.items():
        has_none = field.is_required() or field.default_factory is not None or field.default in ("", None)
        default = "" if has_none else f" (default {field.default})"
        lines.append(f"  {_flag(name)}: {accepted_values(cls, name)}{default}")
        if field.description:
            lines.append(f"      {field.description}")
    return "\n".join(lines) + "\n"
