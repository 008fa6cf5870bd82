"""`serin chat`: talk to a model of the running mesh."""

import argparse
import contextlib
import sys
from typing import Any

from serin_cli.arguments import add_state, integer, number, state_path
from serin_cli.chat_client import AskError, ChatClient, Message
from serin_cli.errors import NoMesh
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir
from serin_cli.terminal import say, speak

DESCRIPTION = """\
Talk to a model: with a question, print its answer; without one, have a conversation (Ctrl-C stops an answer, Ctrl-D
ends). A question on standard input is taken too:  echo "What is the capital of France?" | serin chat
"""
PROMPT = "> "


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("question", nargs="*", metavar="QUESTION", help="what to ask; none: a conversation")
    parser.add_argument("--model", metavar="NAME", help="model to ask (default: the mesh's first)")
    parser.add_argument("--system", metavar="TEXT", help="system prompt")
    parser.add_argument("--max-tokens", type=integer(1, 2**31 - 1), metavar="N", help="longest answer, in tokens")
    parser.add_argument("--temperature", type=number(0, 2), metavar="T", help="0: always the likeliest token")
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask once or converse."""
    state = StateDir(state_path(arguments.state))
    record = read_record(state)
    options = {"max_tokens": arguments.max_tokens, "temperature": arguments.temperature}
    given = {name: value for name, value in options.items() if value is not None}
    messages: list[Message] = [{"role": "system", "content": arguments.system}] if arguments.system else []
    with ChatClient(record.openai_base_url, state.read_default_key()) as client:
        model = arguments.model or _first_model(client)
        question = " ".join(arguments.question) or (None if sys.stdin.isatty() else sys.stdin.read().strip())
        if question is not None:
            _ask(client, model, [*messages, {"role": "user", "content": question}], given)
        else:
            _converse(client, model, messages, given)
    return 0


def _converse(client: ChatClient, model: str, messages: list[Message], options: dict[str, Any]) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - arrow keys and history in input()
    say(f"talking to {model}; Ctrl-D ends")
    while True:
        try:
            question = input(PROMPT).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not question:
            continue
        messages.append({"role": "user", "content": question})
        try:
            messages.append({"role": "assistant", "content": _ask(client, model, messages, options)})
        except KeyboardInterrupt:
            print("\n(stopped)")
            messages.pop()
        except AskError as error:
            say(str(error), sys.stderr)
            messages.pop()


def _ask(client: ChatClient, model: str, messages: list[Message], options: dict[str, Any]) -> str:
    pieces = []
    for piece in client.stream(model, messages, **options):
        pieces.append(piece)
        speak(piece)
    print()
    return "".join(pieces)


def _first_model(client: ChatClient) -> str:
    models = client.models()
    if not models:
        raise NoMesh("the mesh serves no model yet; see `serin status`")
    return models[0]
