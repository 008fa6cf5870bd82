"""`serin demo`: a whole mesh for a minute: started, asked, stopped."""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from serin_cli.arguments import add_state
from serin_cli.chat_client import ChatClient
from serin_cli.demo_model import DEMO_MODEL, demo_config
from serin_cli.local.display import Display, seconds_since
from serin_cli.local.mesh import LocalMesh
from serin_cli.local.run import run_mesh
from serin_cli.local.wish import Wish
from serin_cli.state_dir import StateDir
from serin_cli.terminal import speak

DESCRIPTION = """\
Start a mesh on free ports of this machine, ask the demo model through the gateway, show its answers as they stream,
stop everything again. State goes to a temporary directory that is removed, or to --state DIR.
"""
QUESTIONS = ("What is the capital of France?", "What is 12 plus 30?", "Who are you?")
NEXT = """\
What to try next:
  .venv/bin/serin up                    start a mesh and keep it
  eval "$(.venv/bin/serin env)"         in another shell: OPENAI_BASE_URL and OPENAI_API_KEY
  .venv/bin/serin chat                  talk to the model
  .venv/bin/serin up --model DIR        serve a model of your own (safetensors, or a hub id)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Start, ask, stop."""
    begun = time.monotonic()
    print("Starting a mesh on free ports: gateway, tokenizer, worker, cache, control plane, two Valkeys.", flush=True)
    with tempfile.TemporaryDirectory(prefix="serin-demo-") as scratch:
        state = StateDir(arguments.state or Path(scratch))
        state.prepare()
        lock = state.lock()
        try:
            wish = Wish(config=demo_config(), replaces=True, http_port=0, grpc_port=0)
            asyncio.run(run_mesh(wish, state, lock, guest=lambda mesh, display: _ask(mesh, display, state, begun)))
        finally:
            os.close(lock)
    print(f"Everything is stopped, after {seconds_since(begun)}.\n\n{NEXT}")
    return 0


async def _ask(mesh: LocalMesh, display: Display, state: StateDir, begun: float) -> None:
    base_url = f"http://127.0.0.1:{mesh.site.http_port}/v1"
    display.say(f"\nThe mesh answers at {base_url}. Asking the model {DEMO_MODEL!r}:\n")
    first = await asyncio.to_thread(_stream, base_url, state.read_default_key())
    display.say(f"\nThe first token came {first - begun:.1f} s after the start. Draining.")


def _stream(base_url: str, key: str) -> float:
    """Ask, and print each answer as it comes; returns when the first piece of all came."""
    first = 0.0
    with ChatClient(base_url, key) as client:
        for question in QUESTIONS:
            print(f"  {question}  ", end="", flush=True)
            for piece in client.stream(DEMO_MODEL, [{"role": "user", "content": question}], temperature=0):
                first = first or time.monotonic()
                speak(piece)
            print()
    return first
