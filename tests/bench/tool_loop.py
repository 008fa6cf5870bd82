"""The share of tool loops that a model gets right, asked through openai: ``python tests/bench/tool_loop.py``.

Starts a mesh with the demo model, or with the model in ``--model DIR``; or asks one that runs (``--url``, ``--key``).
Each task is two requests: one that must call the right function, one that must say what it gave.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.clients import plain_openai
from harness.running_mesh import RunningMesh
from harness.tool_loop import ToolScore, run_tasks
from serin_worker.demo.flags import positive
from serin_worker.demo.paths import model_folder
from serin_worker.demo.tool_tasks import held_out_tasks

NUM_TASKS = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the score as JSON."""
    options = _parser().parse_args(arguments)
    if options.url:
        score = asyncio.run(_score(f"{options.url.rstrip('/')}/v1", options.key, options.name, options))
    else:
        score = _in_own_mesh(options)
    shown = {
        "tasks": score.num_tasks,
        "calls_right": score.num_calls_right,
        "right": score.num_right,
        "share": round(score.share, 4),
    }
    sys.stdout.write(json.dumps(shown) + "\n")
    return 0


def _in_own_mesh(options: argparse.Namespace) -> ToolScore:
    with tempfile.TemporaryDirectory() as folder:
        version = f"{{path: {options.model.resolve()}}}"
        declared = f"models:\n  small: {{precision: float32, numerics: invariant, versions: {{v: {version}}}}}\n"
        mesh = RunningMesh(Path(folder) / "state", declared)
        mesh.start()
        try:
            return asyncio.run(_score(f"{mesh.rest}/v1", mesh.key, "small", options))
        finally:
            mesh.stop()


async def _score(url: str, key: str, model: str, options: argparse.Namespace) -> ToolScore:
    async with plain_openai(url, key) as client:
        return await run_tasks(client, model, held_out_tasks(options.tasks), stream=options.stream)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tool_loop.py", description="Share of tool loops that come out right.")
    parser.add_argument("--tasks", type=positive, default=NUM_TASKS, help="how many (default 50)")
    parser.add_argument("--model", type=Path, default=model_folder("small", "v2"), help="folder (default: small v2)")
    parser.add_argument("--stream", action="store_true", help="ask for streams")
    parser.add_argument("--url", help="ask a mesh that runs, for example http://127.0.0.1:8080")
    parser.add_argument("--key", default="", help="its key")
    parser.add_argument("--name", default="small", help="the model's name there (default small)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
