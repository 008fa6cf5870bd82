"""The Dockerfile and its entrypoint, as far as they can be checked without an engine."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from harness.compose_file import read_compose
from harness.distributions import ROOMS, SERVICES

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")


def entrypoint(**environment: str) -> dict[str, str]:
    """The environment that a command gets from the entrypoint."""
    done = subprocess.run(
        ["sh", str(ROOT / "deploy" / "entrypoint.sh"), "env"],
        env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=True, timeout=10,
    )  # fmt: skip
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_everything_copied_into_an_image_exists():
    """Each COPY from the repository names something that is there."""
    sources = re.findall(r"^COPY (?:--chmod=\d+ )?(\S+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    assert set(ROOMS) <= set(sources)
    assert all((ROOT / source).exists() for source in sources)


def test_compose_builds_what_the_dockerfile_accepts():
    """SERVICE in the compose file is always one of those that the Dockerfile knows, and all of them are used."""
    services = read_compose(ROOT / "docker-compose.yml", {}).values()
    built = {service.build["args"]["SERVICE"] for service in services if service.build}
    assert built == {*SERVICES, "cli"}
    refusal = re.search(r"accepted: ([\w, -]+)\"", DOCKERFILE)
    assert refusal is not None
    assert set(refusal[1].split(", ")) == built


def test_images_run_as_nobody_special():
    """The last USER is a number that is not root, so that orchestrators can check it."""
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


def test_torch_is_in_the_worker_alone():
    """Only the worker's distribution asks for torch, so only its image gets it."""
    asking = [room for room in ROOMS if '"torch' in (ROOT / room / "pyproject.toml").read_text(encoding="utf-8")]
    assert asking == ["worker"]


@pytest.mark.parametrize(
    ("environment", "advertised"),
    [
        ({"SERIN_HOST": "127.0.0.1"}, None),
        ({}, None),
        ({"SERIN_HOST": "0.0.0.0", "SERIN_ADVERTISE_HOST": "10.1.2.3"}, "10.1.2.3"),
    ],
)
def test_an_address_is_announced_only_where_none_was_said(environment: dict[str, str], advertised: str | None):
    """On loopback nothing is announced anew, and what somebody said stays."""
    assert entrypoint(**environment).get("SERIN_ADVERTISE_HOST") == advertised


def test_a_container_announces_its_own_address():
    """Listening everywhere, it says the first address of its host name."""
    own = subprocess.run(["hostname", "-i"], capture_output=True, text=True, check=True).stdout.split()[0]
    assert entrypoint(SERIN_HOST="0.0.0.0")["SERIN_ADVERTISE_HOST"] == own
