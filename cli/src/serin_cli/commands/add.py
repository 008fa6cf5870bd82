"""`serin add`: a further version of a service beside the declared ones, to rehearse its release on this machine."""

import argparse
import asyncio
from pathlib import Path

import yaml
from pydantic import ValidationError
from serin_control.config import MeshConfig, parse_config
from serin_control.config.declaration import EngineConfig
from serin_control.rollouts.sight import BASELINE_SUFFIX
from serin_mesh.errors import MeshError

from serin_cli.arguments import add_state, integer, state_path
from serin_cli.errors import CliError, ModelRefused, UsageProblem
from serin_cli.local.additions import MODEL_SERVICES, Addition, Additions, AdditionsFile, Which
from serin_cli.local.arrival import await_version
from serin_cli.local.model_folder import ModelFolders, check_memory
from serin_cli.local.naming import add_version_flags, which_version
from serin_cli.local.registry import ControlPlane
from serin_cli.local.releases import declared_path, heaviest, num_declared
from serin_cli.models.reference import Reference
from serin_cli.models.registry import ModelRegistry
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir

DESCRIPTION = """\
Start a further version of a service in the running mesh, beside the declared ones. It gets no traffic until a rollout
gives it some, runs like the version with the most traffic except for what is said here, and comes back with every
`serin up` on this state directory until `serin remove` takes it away.

  serin add worker --model small --version v2 --path registry:small:v2
  serin add worker --model small --version v1-bf16 --set precision=bfloat16
  serin add cache --version v2 --code /builds/cache-v2
"""
PACKAGES = {
    "worker": "serin_worker",
    "tokenizer": "serin_tokenizer_svc",
    "cache": "serin_cache_svc",
    "gateway": "serin_gateway",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_version_flags(parser)
    parser.add_argument(
        "--path",
        metavar="PATH",
        help="worker, tokenizer: model folder, hub id or registry:NAME:VERSION (default: what was pushed as MODEL "
        "VERSION); cache, gateway: the same as --code",
    )
    parser.add_argument(
        "--code",
        type=Path,
        metavar="DIR",
        help="another build of the service: a virtual environment, or a folder made by pip install --target",
    )
    parser.add_argument(
        "--workers", type=integer(1, 256), metavar="N", help="processes of it, of any service (default: 1)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a worker's setting as in serin.yaml, for example precision=bfloat16; repeatable",
    )
    parser.add_argument(
        "--wait", type=integer(1, 86_400), default=300, metavar="SECONDS", help="how long to wait (default: 300)"
    )
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check, write down what is added, wait until it is ready."""
    which = which_version("serin add", arguments)
    state = StateDir(state_path(arguments.state))
    record = read_record(state)
    config = asyncio.run(_declared(record.control))
    file = AdditionsFile(state.additions)
    wanted = _wanted(arguments, which, config, file.read(), ModelRegistry(state))
    file.change(lambda kept: _with(kept, which, wanted))
    num_processes = wanted.num_processes if wanted is not None else num_declared(config, which)
    names = await_version(state, which, num_processes, arguments.wait)
    away = state.command(f"serin remove {which.arguments}")
    print(f"{which} is ready ({', '.join(names)}); `{away}` takes it away")
    return 0


async def _declared(address: str) -> MeshConfig:
    try:
        async with ControlPlane(address) as control:
            return parse_config((await control.config()).yaml)
    except MeshError as error:
        raise CliError(f"the control plane at {address} does not say what is declared: {error}") from error


def _with(kept: Additions, which: Which, wanted: Addition | None) -> Additions:
    return kept.withholding(which, False) if wanted is None else kept.with_added(wanted)


def _wanted(
    arguments: argparse.Namespace, which: Which, config: MeshConfig, kept: Additions, registry: ModelRegistry
) -> Addition | None:
    """What is to be added; None: a declared version is to come back."""
    if which.service in MODEL_SERVICES and which.model not in config.models:
        raise UsageProblem.setting("serin add: --model", which.model, ", ".join(config.models))
    if num_declared(config, which):
        _check_back(arguments, which, config, kept)
        return None
    before = kept.find(which)
    code = _code(arguments, which)
    engine = _engine(arguments.set, which)
    path = _path(
        arguments, which, config, before, registry, differs=bool(code or engine) or _is_baseline(which, config)
    )
    num_processes = arguments.workers or (before.num_processes if before else 1)
    wanted = Addition(which, path, num_processes, code, engine)
    if before is not None and (arguments.path or code or engine):
        _refuse_change(before, wanted)
    if before is not None:
        wanted = Addition(which, before.path, num_processes, before.code, before.engine)
    if which.service in MODEL_SERVICES:
        _look(wanted, num_processes - (before.num_processes if before else 0), registry)
    return wanted


def _check_back(arguments: argparse.Namespace, which: Which, config: MeshConfig, kept: Additions) -> None:
    if which not in kept.withheld:
        accepted = f"a version that is not there; {which} is declared (serin.yaml says how many processes it has)"
        raise UsageProblem.setting("serin add: --version", which.version, accepted)
    for flag in ("path", "code", "workers", "set"):
        value = getattr(arguments, flag)
        if value and not (flag == "path" and _resolved(value) == declared_path(config, which)):
            accepted = f"nothing for {which}, which comes back as it is declared"
            raise UsageProblem.setting(f"serin add: --{flag}", str(value), accepted)


def _refuse_change(before: Addition, wanted: Addition) -> None:
    for flag, old, new in (
        ("path", before.path, wanted.path),
        ("code", before.code, wanted.code),
        ("set", before.engine, wanted.engine),
    ):
        if old != new:
            accepted = f"{str(old) or 'nothing'!r} as {before.which} has it; a version never changes: add another one"
            raise UsageProblem.setting(f"serin add: --{flag}", new, accepted)


def _path(
    arguments: argparse.Namespace,
    which: Which,
    config: MeshConfig,
    before: Addition | None,
    registry: ModelRegistry,
    *,
    differs: bool,
) -> str:
    if which.service not in MODEL_SERVICES:
        return ""
    if arguments.path is not None:
        return _resolved(arguments.path)
    if before is not None:
        return before.path
    pushed = Reference(which.model, which.version)
    if registry.has(pushed):
        return pushed.path
    if differs:  # another build or setting of the same model, or the same again
        return heaviest(config, which.model).path
    accepted = f"a model folder, a hub id or registry:NAME:VERSION; {pushed} was not pushed (`serin model push`)"
    raise UsageProblem.setting("serin add: --path", None, accepted)


def _is_baseline(which: Which, config: MeshConfig) -> bool:
    """Whether it is what a rollout with `--baseline` compares with: the same version in processes of its own."""
    return which.version == f"{heaviest(config, which.model).version}{BASELINE_SUFFIX}" if which.model else False


def _resolved(path: str) -> str:
    """A folder by its whole name; anything else as it is."""
    folder = Path(path).expanduser()
    return str(folder.absolute()) if path and folder.is_dir() else path


def _code(arguments: argparse.Namespace, which: Which) -> str:
    flag, given = "--code", arguments.code
    if which.service not in MODEL_SERVICES and arguments.path is not None:
        flag, given = "--path", Path(arguments.path)
    if given is None:
        return ""
    folder = given.expanduser().absolute()
    package = PACKAGES[which.service]
    if not (folder / "bin" / "python").exists() and not (folder / package).is_dir():
        accepted = f"a virtual environment, or a folder that holds {package} (pip install --target)"
        raise UsageProblem.setting(f"serin add: {flag}", str(given), accepted)
    return str(folder)


def _engine(pairs: list[str], which: Which) -> dict[str, str | int]:
    engine: dict[str, str | int] = {}
    known = sorted(set(EngineConfig.model_fields) - {"workers", "tokenizers"})
    for pair in pairs:
        key, is_pair, text = pair.partition("=")
        if which.service != "worker":
            raise UsageProblem.setting(
                "serin add: --set", pair, f"nothing for a {which.service}: a worker has settings"
            )
        if not is_pair or key not in known:
            raise UsageProblem.setting("serin add: --set", pair, f"KEY=VALUE, where KEY is one of {', '.join(known)}")
        try:
            value = getattr(EngineConfig.model_validate({key: yaml.safe_load(text)}), key)
        except (ValidationError, yaml.YAMLError) as error:
            accepted = f"what serin.yaml accepts for {key}; `serin config schema` shows it"
            raise UsageProblem.setting("serin add: --set", pair, accepted) from error
        if value is not None:
            engine[key] = value
    return engine


def _look(addition: Addition, num_more: int, registry: ModelRegistry) -> None:
    """See that the model is there and fits, before anything is started for it."""
    try:
        folder = ModelFolders(registry).fetch(addition.path)
    except ModelRefused as refused:
        raise UsageProblem(f"serin add: --path: {addition.path!r}: {refused.wrong}") from refused
    if addition.which.service == "worker":
        check_memory([folder] * num_more)
