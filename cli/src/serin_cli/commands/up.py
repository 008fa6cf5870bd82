"""`serin up`: a whole mesh on this machine, in the foreground or detached."""

import argparse
import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from serin_cli.arguments import add_state, integer, redis_url, state_path
from serin_cli.detached import start_detached
from serin_cli.errors import ModelRefused, UsageProblem
from serin_cli.state_dir import StateDir

if TYPE_CHECKING:
    from serin_cli.models.registry import ModelRegistry

DESCRIPTION = """\
Start a mesh on this machine: gateway, tokenizer, worker, cache, control plane and, unless told otherwise, two
embedded Valkeys. It stays in the foreground; Ctrl-C drains and stops it. Keys and state survive in the state directory.

Without -f or --model the demo model is served, or what this state directory served last.
"""
DEFAULT_EDGE_PORT = 8443


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    any_port = integer(0, 65535)
    parser.add_argument("-f", "--file", type=Path, metavar="FILE", help="serin.yaml that declares the mesh")
    parser.add_argument(
        "--model",
        metavar="PATH_OR_HUB_ID",
        help="model folder, hub id or registry:NAME:VERSION (default: the demo model)",
    )
    parser.add_argument("--workers", type=integer(1, 256), metavar="N", help="workers for the model (default: 1)")
    parser.add_argument("--port", type=any_port, metavar="PORT", help="REST port; 0: any free one (default: 8080)")
    parser.add_argument("--grpc-port", type=any_port, metavar="PORT", help="gRPC port; 0: any free one (default: 9080)")
    parser.add_argument(
        "--state-redis", type=redis_url, metavar="URL", help="Redis that keeps state: noeviction, append-only"
    )
    parser.add_argument("--cache-redis", type=redis_url, metavar="URL", help="Redis that caches")
    parser.add_argument(
        "--edge", action="store_true", help="put Envoy before the gateway: TLS, REST and gRPC on one port"
    )
    parser.add_argument(
        "--edge-port", type=any_port, metavar="PORT", help="port of the edge; 0: any free one (default: 8443)"
    )
    parser.add_argument(
        "--edge-cert", type=Path, metavar="FILE", help="certificate of the edge, PEM (default: one is made)"
    )
    parser.add_argument("--edge-key", type=Path, metavar="FILE", help="key of that certificate, PEM")
    parser.add_argument(
        "--edge-mesh-port",
        type=any_port,
        metavar="PORT",
        help="port for plain gRPC callers of inner services through the edge; 0: any free one (default: none)",
    )
    parser.add_argument("--detach", action="store_true", help="return once the mesh is ready; `serin down` stops it")
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Start, and stay or detach."""
    if arguments.file is not None:
        for flag, value in (("--model", arguments.model), ("--workers", arguments.workers)):
            if value is not None:
                raise UsageProblem(f"serin up: {flag}: {value!r}: accepted: only without -f, which declares it")
    if arguments.port and arguments.port == arguments.grpc_port:
        raise UsageProblem.setting("serin up: --grpc-port", arguments.grpc_port, "another port than --port")
    _check_edge(arguments)
    state = StateDir(state_path(arguments.state))
    state.prepare()
    return start_detached(arguments.argv, state) if arguments.detach else _stay(arguments, state)


def _check_edge(arguments: argparse.Namespace) -> None:
    given = {
        "--edge-port": arguments.edge_port,
        "--edge-mesh-port": arguments.edge_mesh_port,
        "--edge-cert": arguments.edge_cert,
        "--edge-key": arguments.edge_key,
    }
    for flag, value in given.items():
        if value is not None and not arguments.edge:
            raise UsageProblem(f"serin up: {flag}: {str(value)!r}: accepted: only together with --edge")
    if (arguments.edge_cert is None) != (arguments.edge_key is None):
        flag = "--edge-cert" if arguments.edge_cert else "--edge-key"
        value = str(arguments.edge_cert or arguments.edge_key)
        raise UsageProblem(f"serin up: {flag}: {value!r}: accepted: --edge-cert and --edge-key together, or neither")


def _stay(arguments: argparse.Namespace, state: StateDir) -> int:
    from serin_cli.local.edge import EdgeWish
    from serin_cli.local.run import run_mesh  # what a detaching parent does not need
    from serin_cli.local.wish import Wish
    from serin_cli.models.registry import ModelRegistry

    port = DEFAULT_EDGE_PORT if arguments.edge_port is None else arguments.edge_port
    edge = EdgeWish(port, arguments.edge_cert, arguments.edge_key, arguments.edge_mesh_port) if arguments.edge else None
    lock = state.lock()
    try:
        text, replaces = _declaration(arguments, ModelRegistry(state))
        wish = Wish(
            config=text,
            replaces=replaces,
            http_port=arguments.port,
            grpc_port=arguments.grpc_port,
            state_redis=arguments.state_redis,
            cache_redis=arguments.cache_redis,
            edge=edge,
        )
        asyncio.run(run_mesh(wish, state, lock))
    finally:
        os.close(lock)
    return 0


def _declaration(arguments: argparse.Namespace, registry: "ModelRegistry") -> tuple[str, bool]:
    """Text of a `serin.yaml`, and whether it replaces what was served last."""
    from serin_cli.config_text import check_guards, check_models, read_config
    from serin_cli.demo_model import demo_config, model_config
    from serin_cli.local.model_folder import check_path

    if arguments.file is not None:
        text, _ = read_config(arguments.file)
        check_models(arguments.file, text, lambda path: check_path(path, registry))
        check_guards(arguments.file, text)
        return text, True
    if arguments.model is not None:
        try:
            check_path(arguments.model, registry)
        except ModelRefused as refused:
            raise UsageProblem(f"serin up: --model: {arguments.model!r}: {refused.wrong}") from refused
        return model_config(arguments.model, arguments.workers or 1), True
    return demo_config(arguments.workers or 1), arguments.workers is not None
