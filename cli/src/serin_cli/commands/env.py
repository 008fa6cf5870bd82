"""`serin env`: what a shell needs to talk to a running mesh."""

import argparse
import shlex

from serin_cli.arguments import add_state, state_path
from serin_cli.record import read_record
from serin_cli.state_dir import StateDir

DESCRIPTION = """\
Print shell commands that point the OpenAI and Anthropic SDKs at the running mesh, through its edge if it has one:

  eval "$(serin env)"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_state(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the exports."""
    state = StateDir(state_path(arguments.state))
    record = read_record(state)
    url, key = record.edge or record.rest, shlex.quote(state.read_default_key())
    print(f"export OPENAI_BASE_URL={shlex.quote(f'{url}/v1')}")
    print(f"export OPENAI_API_KEY={key}")
    print(f"export ANTHROPIC_BASE_URL={shlex.quote(url)}")
    print(f"export ANTHROPIC_API_KEY={key}")
    if record.edge:
        print(f"export SSL_CERT_FILE={shlex.quote(record.edge_trust)}")
    return 0
