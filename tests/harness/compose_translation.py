"""From what a compose file says for containers to what is true for processes on loopback: names, ports, folders.

Knows nothing about starting processes.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from serin_mesh.testing import free_port

from harness.compose_file import ComposeService

EVERY_ADDRESS = "0.0.0.0"
LOOPBACK = "127.0.0.1"
SPOKEN_OF = {"SERIN_EDGE_PORT": "envoy", "SERIN_ENVOY_TLS_DIR": "envoy"}
"""Settings that speak of another service's machine."""


class Translation:
    """Gives each (service, port) a free port of loopback and each volume a folder, and rewrites texts by them."""

    def __init__(self, services: Mapping[str, ComposeService], root: Path, folder: Path) -> None:
        self._services = services
        self._root = root
        self._folder = folder
        self._ports: dict[tuple[str, str], int] = {}

    def port(self, service: str, port: str) -> int:
        """The loopback port that stands for a service's port."""
        return self._ports.setdefault((service, port), free_port())

    def address(self, service: str, port: str) -> str:
        """The loopback address that stands for a service's port."""
        return f"{LOOPBACK}:{self.port(service, port)}"

    def command(self, service: ComposeService, words: Sequence[str]) -> list[str]:
        """A command of a service; values of flags that name one of its own ports are translated too."""
        translated = []
        for before, word in zip(["", *words], words, strict=False):
            flag, equals, value = word.partition("=")
            if _is_port_flag(before) and word.isdigit():
                word = str(self.port(service.name, word))
            elif equals and _is_port_flag(flag) and value.isdigit():
                word = f"{flag}={self.port(service.name, value)}"
            translated.append(self.text(service, word))
        return translated

    def environment(self, service: ComposeService) -> dict[str, str]:
        """The environment of a service."""
        translated = {}
        for name, value in service.environment.items():
            meant = self._services[SPOKEN_OF.get(name, service.name)]
            is_port = name.endswith("PORT")
            translated[name] = str(self.port(meant.name, value)) if is_port else self.text(meant, value)
        return translated

    def text(self, service: ComposeService, text: str) -> str:
        """Any other text of a service: paths of its mounts, addresses of other services, its own ports."""
        for target in sorted([*service.mounts, *service.configs], key=len, reverse=True):
            text = re.sub(rf"(?<![\w./-]){re.escape(target)}(?![\w.-])", str(self.path(service, target)), text)
        names = "|".join(map(re.escape, [*self._services, "localhost"]))

        def own(match: re.Match[str]) -> str:
            host = service.name if match["host"] == "localhost" else match["host"]
            return self.address(host, match["port"])

        text = re.sub(rf"(?<![\w.-])(?P<host>{names}):(?P<port>\d+)(?!\d)", own, text)
        return text.replace(EVERY_ADDRESS, LOOPBACK)

    def path(self, service: ComposeService, target: str) -> Path:
        """Where a mount or a config of a service is on this machine."""
        source = service.mounts.get(target, "")
        if target in service.configs or (self._root / source).is_file():
            return self._folder / "configs" / service.name / Path(target).name
        return (self._root / source).resolve() if source[0] in "./" else self._folder / "volumes" / source

    def prepare(self, service: ComposeService) -> None:
        """Make the folders and files that a service finds mounted, one inside another where the file says so."""
        for target, source in service.mounts.items():
            if (self._root / source).is_file():
                self._copy(service, target, (self._root / source).read_text(encoding="utf-8"))
            elif source[0] not in "./":
                self.path(service, target).mkdir(parents=True, exist_ok=True)
        for target in sorted(service.mounts, key=len):
            outer = [other for other in service.mounts if target.startswith(f"{other}/")]
            if outer:
                link = self.path(service, max(outer, key=len)) / target.removeprefix(f"{max(outer, key=len)}/")
                if not link.exists():
                    link.symlink_to(self.path(service, target), target_is_directory=True)
        for target, content in service.configs.items():
            self._copy(service, target, content)

    def _copy(self, service: ComposeService, target: str, content: str) -> None:
        """A YAML file as the service should read it here."""
        file = self.path(service, target)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(self._value(service, yaml.safe_load(content))), encoding="utf-8")

    def _value(self, service: ComposeService, value: Any) -> Any:
        if isinstance(value, dict):
            if "port_value" in value:
                host = value["address"] if value["address"] in self._services else service.name
                return {"address": LOOPBACK, "port_value": self.port(host, str(value["port_value"]))}
            return {key: self._value(service, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(service, item) for item in value]
        return self.text(service, value) if isinstance(value, str) else value


def _is_port_flag(word: str) -> bool:
    return word.startswith("--") and word.endswith("port")
