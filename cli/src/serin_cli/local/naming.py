"""The flags that name a version of a service, and what they may say.

Knows nothing about what is done with it.
"""

import argparse

from serin_cli.arguments import model_name, version_name
from serin_cli.errors import UsageProblem
from serin_cli.local.additions import MODEL_SERVICES, SERVICES, Which


def add_version_flags(parser: argparse.ArgumentParser) -> None:
    """Add service, model and version."""
    parser.add_argument("service", choices=SERVICES, metavar="SERVICE", help=", ".join(SERVICES))
    parser.add_argument("--model", type=model_name, metavar="NAME", help="model of a worker or tokenizer")
    parser.add_argument("--version", type=version_name, required=True, metavar="VERSION", help="what it is called")


def which_version(command: str, arguments: argparse.Namespace) -> Which:
    """The version that is meant.

    Raises:
        UsageProblem: a model is missing, or named where there is none.
    """
    if arguments.service in MODEL_SERVICES and arguments.model is None:
        raise UsageProblem.setting(f"{command}: --model", None, f"the model of the {arguments.service}")
    if arguments.service not in MODEL_SERVICES and arguments.model is not None:
        accepted = f"nothing for a {arguments.service}, which serves all models"
        raise UsageProblem.setting(f"{command}: --model", arguments.model, accepted)
    return Which(arguments.service, arguments.model or "", arguments.version)
