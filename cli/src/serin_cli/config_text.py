"""Text of a `serin.yaml` on its way from a file to the control plane.

Model folders are written relative to the file; the control plane does not know where the file was, so they are made
absolute in the text itself, line by line as it was written. Knows nothing about running meshes.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from serin_control.config import ConfigInvalid, MeshConfig, parse_config
from serin_control.config.reading import read_text
from serin_control.config.yaml_lines import read_yaml
from serin_gateway.guards.presidio import is_installed

from serin_cli.errors import ModelRefused, StartRefused, UsageProblem


def read_config(path: Path) -> tuple[str, MeshConfig]:
    """Text and meaning of a file, with folders made absolute.

    Raises:
        UsageProblem: the first thing that is wrong with it, with file and line.
    """
    try:
        text = read_text(path)
        parse_config(text, str(path))
        resolved = with_absolute_paths(text, path.absolute().parent)
        return resolved, parse_config(resolved, str(path))
    except ConfigInvalid as error:
        raise refusal(error) from error


def check_models(file: Path, text: str, look: Callable[[str], object]) -> None:
    """Have every model path of a checked text looked at.

    Raises:
        UsageProblem: ``look`` raised ModelRefused; with file, line and key.
        StartRefused: ``look`` could not tell; with file, line and key too.
    """
    lines = read_yaml(text)[1]
    for name, model in parse_config(text).models.items():
        for release in model.releases():
            inside = ("versions", release.version) if model.versions else ()
            key = ("models", name, *inside, "path")
            where = f"{file}:{lines.at(key)}: {'.'.join(key)}"
            try:
                look(release.path)
            except ModelRefused as refused:
                raise UsageProblem(f"{where}: {release.path!r}: {refused.wrong}") from refused
            except StartRefused as refused:
                raise StartRefused(f"{where}: {refused}") from refused


def check_guards(file: Path, text: str) -> None:
    """Whether the gateways that are run here have what the guards of a checked text need.

    Raises:
        UsageProblem: they have not; with file, line and key.
    """
    lines = read_yaml(text)[1]
    for name, policy in parse_config(text).guards.policies.items():
        if (policy.pii.input, policy.pii.output) != ("none", "none") and not is_installed():
            key = ("guards", "policies", name, "pii")
            where = f"{file}:{lines.at(key)}: {'.'.join(key)}"
            raise UsageProblem(f"{where}: presidio-analyzer is not installed here: pip install 'serin-gateway[pii]'")


def refusal(error: ConfigInvalid) -> UsageProblem:
    """The first problem, and how many more there are."""
    more = len(error.problems) - 1
    return UsageProblem(f"{error.problems[0]}" + (f" (and {more} more)" if more else ""))


def with_absolute_paths(text: str, folder: Path) -> str:
    """The same text with every model path that names something under ``folder`` made absolute.

    What names nothing there is left alone: it may be a hub id.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pieces, position = [], 0
    for node in sorted(_path_nodes(root), key=lambda node: node.start_mark.index):
        written = Path(node.value).expanduser()
        if not written.is_absolute() and not (folder / written).exists():
            continue
        pieces += [text[position : node.start_mark.index], json.dumps(str(folder / written))]
        position = node.end_mark.index
    return "".join([*pieces, text[position:]])


def _path_nodes(root: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    for model in _children(_child(root, "models")):
        for holder in (model, *_children(_child(model, "versions"))):
            path = _child(holder, "path")
            if isinstance(path, yaml.ScalarNode):
                yield path


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _children(node: yaml.Node | None) -> list[yaml.Node]:
    return [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else []
