"""What an announcement must say to be believed.

Knows nothing about leases or other instances: one announcement at a time.
"""

import re

from serin_control.errors import RegistrationInvalid
from serin_control.instance import LANE_SERVICES, Formats, Registration, Service, State, Status

_INSTANCE = re.compile(r"[a-zA-Z0-9._-]{1,128}\Z")
_MODEL = re.compile(r"[a-z0-9._-]{1,64}\Z")
_VERSION = re.compile(r"[a-zA-Z0-9._-]{1,64}\Z")
_DIGEST = re.compile(r"[0-9a-f]{2,128}\Z")
MAX_FORMATS = 255


def check_registration(registration: Registration) -> None:
    """Refuse a registration that is incomplete or malformed.

    Raises:
        RegistrationInvalid: naming the field and what it takes.
    """
    _match(_INSTANCE, registration.instance, "instance", "1 to 128 of a-z A-Z 0-9 . _ -")
    _match(_VERSION, registration.version, "version", "1 to 64 of a-z A-Z 0-9 . _ -")
    if registration.service in LANE_SERVICES:
        _match(
            _MODEL, registration.model, "model", f"1 to 64 of a-z 0-9 . _ -: a {registration.service} serves one model"
        )
    elif registration.model:
        raise RegistrationInvalid(f"model: {registration.model!r}: must be empty: a {registration.service} serves all")
    _check_endpoint("endpoint", registration.endpoint)
    if registration.http_endpoint:
        _check_endpoint("http_endpoint", registration.http_endpoint)
    _check_formats(registration.formats)


def _check_formats(formats: Formats) -> None:
    numbers = (formats.written, *formats.read)
    if len(formats.read) > MAX_FORMATS or max(numbers) > MAX_FORMATS:
        raise RegistrationInvalid(f"formats: {numbers}: must be at most {MAX_FORMATS} numbers of at most {MAX_FORMATS}")


def check_status(registration: Registration, status: Status) -> None:
    """Refuse a heartbeat that contradicts itself or leaves out what its state needs.

    Raises:
        RegistrationInvalid: naming the field and what it takes.
    """
    if status.state is State.SUSPECT:
        raise RegistrationInvalid("state: SUSPECT is said by the control plane only")
    if not 0 <= status.progress <= 1:
        raise RegistrationInvalid(f"progress: {status.progress}: must be 0 to 1")
    if status.state is not State.READY or registration.service not in LANE_SERVICES:
        return
    _match(_DIGEST, status.digests.artifact, "digests.artifact", "lowercase hex, once READY")
    _match(_DIGEST, status.digests.vocabulary, "digests.vocabulary", "lowercase hex, once READY")
    if registration.service is Service.WORKER:
        _match(_DIGEST, status.digests.kv, "digests.kv", "lowercase hex, once READY")
        has_blocks = status.capacity.block_size or status.capacity.num_embedding_dimensions
        if not (status.capacity.context_length and has_blocks):
            raise RegistrationInvalid(
                "capacity: a READY worker names context_length and block_size (one that computes embeddings: "
                "embedding_dimension_count), both above 0"
            )


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"{endpoint!r}: must be host:port, port 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_endpoint(field: str, endpoint: str) -> None:
    try:
        host, _ = split_endpoint(endpoint)
    except ValueError as error:
        raise RegistrationInvalid(f"{field}: {error}") from error
    if host in ("0.0.0.0", "::"):  # noqa: S104 - refused here, never bound
        raise RegistrationInvalid(f"{field}: {endpoint}: nobody can dial {host}: set --advertise-host")


def _match(pattern: re.Pattern[str], value: str, field: str, takes: str) -> None:
    if not pattern.match(value):
        raise RegistrationInvalid(f"{field}: {value!r}: must be {takes}")
