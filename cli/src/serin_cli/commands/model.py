"""`serin model`: versions of models, kept by content."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serin_cli.arguments import add_state, state_path
from serin_cli.errors import CliError, ModelRefused, UsageProblem
from serin_cli.local.additions import Which
from serin_cli.local.model_folder import HUB_ID, ModelFolders
from serin_cli.models.manifest import Manifest
from serin_cli.models.reference import NAME, VERSION, Reference
from serin_cli.models.registry import ModelRegistry
from serin_cli.state_dir import StateDir
from serin_cli.terminal import say, screen, table

DESCRIPTION = """\
Keep versions of models in the state directory, where no later change of a folder reaches them. A version never changes:
other content is another version. serin.yaml and --path name one as registry:NAME:VERSION.

  serin model push small v2 ./out/checkpoint-900
  serin model show small:v2
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="push|list|show", required=True)
    push = actions.add_parser("push", help="keep a folder's files as a version")
    push.add_argument("name", metavar="NAME", help="of the model")
    push.add_argument("version", metavar="VERSION")
    push.add_argument("path", metavar="PATH", help="model folder, or hub id; weights as safetensors")
    listing = actions.add_parser("list", help="show all versions, and whether the files of each are still the same")
    show = actions.add_parser("show", help="show files, digests and origin, and whether the files are still the same")
    show.add_argument("reference", metavar="NAME[:VERSION]", help="a version, or all of a model")
    for action in (listing, show):
        action.add_argument("--json", action="store_true", help="print JSON")
    for action in (push, listing, show):
        add_state(action)


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action."""
    state = StateDir(state_path(arguments.state))
    registry = ModelRegistry(state)
    if arguments.action == "push":
        state.prepare()
        return _push(arguments, registry)
    if arguments.action == "list":
        return _list(registry, arguments.json)
    return _show(arguments, registry)


def _push(arguments: argparse.Namespace, registry: ModelRegistry) -> int:
    reference = _reference("push", arguments.name, arguments.version)
    try:
        folder = ModelFolders(registry).fetch(arguments.path)
        push = registry.push(reference, folder, _source(arguments.path, str(folder)), _progress)
    except ModelRefused as refused:
        raise UsageProblem(f"serin model push: {arguments.path!r}: {refused.wrong}") from refused
    except OSError as error:
        raise CliError(f"{error.filename or reference}: {error.strerror}; nothing was pushed") from error
    manifest = push.manifest
    if not push.is_new:
        there = f"{reference} is there already with the same content, pushed {manifest.pushed_at}"
        say(f"{there}; mended: {', '.join(push.mended)}" if push.mended else f"{there}; nothing changes")
        return 0
    print(f"pushed {reference}: {len(manifest.files)} files, {_size(manifest.num_bytes)}, digest {manifest.digest}")
    add = f"serin add {Which('worker', reference.name, reference.version).arguments}"
    print(f"serve it as `path: {reference.path}`, or beside what is served: `{add}`")
    return 0


def _list(registry: ModelRegistry, as_json: bool) -> int:
    checked = [(manifest, _damage(manifest, registry)) for manifest in registry.versions()]
    if as_json:
        print(json.dumps([_document(*one) for one in checked], indent=2))
    else:
        print_table(checked)
    return 1 if any(damage for _, damage in checked) else 0


def print_table(checked: Iterable[tuple[Manifest, str]]) -> None:
    """Show versions, a row each, with what is wrong with their files; empty: every file is as it was pushed."""
    rows = table("name", "version", "size", "digest", "vocabulary", "weights", "files", "pushed", "by", "from")
    damages = []
    for manifest, damage in checked:
        digests = (digest[:8] for digest in (manifest.digest, manifest.vocabulary, manifest.weights))
        size, when, files = _size(manifest.num_bytes), manifest.pushed_at, "DAMAGED" if damage else "as pushed"
        rows.add_row(manifest.name, manifest.version, size, *digests, files, when, manifest.pushed_by, manifest.source)
        damages += [f"{manifest.reference} is DAMAGED: {damage}"] if damage else []
    screen().show(rows)
    for damage in damages:
        say(damage, sys.stderr)


def _damage(manifest: Manifest, registry: ModelRegistry) -> str:
    """The first file that is not as it was pushed, and what to do; empty: all of them are."""
    try:
        registry.folder(manifest.reference)
    except ModelRefused as refused:
        return refused.wrong
    return ""


def _document(manifest: Manifest, damage: str) -> dict[str, Any]:
    """A version as `--json` prints it; null: every file is as it was pushed."""
    return {**json.loads(manifest.as_json()), "damaged": damage or None}


def _show(arguments: argparse.Namespace, registry: ModelRegistry) -> int:
    name, has_version, version = arguments.reference.partition(":")
    if has_version:
        manifests = [_found(registry, _reference("show", name, version))]
    else:
        manifests = registry.versions(_reference("show", name, "v1").name)
    if not manifests:
        names = ", ".join(sorted({manifest.name for manifest in registry.versions()})) or "nothing was pushed yet"
        raise UsageProblem.setting("serin model show", name, names)
    checked = [(manifest, _damage(manifest, registry)) for manifest in manifests]
    if arguments.json:
        documents = [_document(*one) for one in checked]
        print(json.dumps(documents[0] if has_version else documents, indent=2))
    else:
        for one in checked:
            _describe(*one)
    return 1 if any(damage for _, damage in checked) else 0


def _found(registry: ModelRegistry, reference: Reference) -> Manifest:
    try:
        return registry.get(reference)
    except ModelRefused as refused:
        raise UsageProblem(f"serin model show: {str(reference)!r}: {refused.wrong}") from refused


def _describe(manifest: Manifest, damage: str) -> None:
    say(f"{manifest.reference}  {_size(manifest.num_bytes)}  path: {manifest.reference.path}")
    say(f"  pushed      {manifest.pushed_at} by {manifest.pushed_by}, from {manifest.source}")
    say(f"  digest      {manifest.digest}")
    say(f"  vocabulary  {manifest.vocabulary}")
    say(f"  weights     {manifest.weights}")
    for line in _file_lines(manifest):
        say(line)
    if damage:
        say(f"  DAMAGED: {damage}", sys.stderr)
    else:
        print("  every file is as it was pushed")


def _file_lines(manifest: Manifest) -> Iterable[str]:
    width = max(len(file.name) for file in manifest.files)
    return (f"  {file.name:<{width}}  {file.num_bytes:>14,}  {file.digest}" for file in manifest.files)


def _reference(action: str, name: str, version: str) -> Reference:
    if not NAME.fullmatch(name):
        raise UsageProblem.setting(f"serin model {action}: NAME", name, "1 to 64 of a-z 0-9 . _ -, not . first")
    if not VERSION.fullmatch(version):
        raise UsageProblem.setting(
            f"serin model {action}: VERSION", version, "1 to 64 of A-Z a-z 0-9 . _ -, not . first"
        )
    return Reference(name, version)


def _source(path: str, folder: str) -> str:
    """A folder by its whole name; a hub id as it is, for its local copy means nothing to others."""
    return path if HUB_ID.match(path) and not Path(path).is_dir() else folder


def _progress(fraction: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{fraction:.0%}", end="" if fraction < 1 else "\n", file=sys.stderr, flush=True)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"
