"""`serin tenant`: organizations, projects, and what limits them."""

import argparse
import asyncio

from serin_gateway.keys.tenants import Directory, Organization, Project
from serin_gateway.limits.limiter import Limits
from serin_mesh.errors import MeshError

from serin_cli.admin_store import add_flags, open_desk
from serin_cli.arguments import tenant_name
from serin_cli.errors import CliError
from serin_cli.limit_flags import add_limits, limits_from, shown
from serin_cli.terminal import screen, table

DESCRIPTION = """\
Declare organizations and projects, and what limits all their keys together. A key belongs to a project, a project to an
organization, for good. What nobody declared exists too, without limits.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="list|organization|project", required=True)
    listing = actions.add_parser("list", help="show all of them")
    organization = actions.add_parser("organization", help="declare one, in place of the one of its name")
    project = actions.add_parser("project", help="declare one, in place of the one of its name")
    for action in (organization, project):
        action.add_argument("name", metavar="NAME", type=tenant_name)
        add_limits(action, "their common")
    project.add_argument(
        "--organization", type=tenant_name, metavar="NAME", help="whose it is (default: the mesh's own)"
    )
    for action in (listing, organization, project):
        add_flags(action)


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action."""
    try:
        return asyncio.run(_act(arguments))
    except MeshError as error:
        raise CliError(error.message) from error


async def _act(arguments: argparse.Namespace) -> int:
    async with open_desk(arguments) as at:
        if arguments.action == "organization":
            limits = limits_from(arguments) or Limits()
            await at.desk.put_organization(at.actor, Organization(arguments.name, limits))
        elif arguments.action == "project":
            limits = limits_from(arguments) or Limits()
            organization = arguments.organization or at.desk.home
            await at.desk.put_project(at.actor, Project(arguments.name, organization, limits))
        else:
            print_table(await at.desk.directory(at.actor))
    return 0


def print_table(directory: Directory) -> None:
    """Show all of them."""
    rows = table("kind", "name", "organization", "limits")
    for organization in directory.organizations:
        rows.add_row("organization", organization.name, "", shown(organization.limits))
    for project in directory.projects:
        rows.add_row("project", project.name, project.organization, shown(project.limits))
    screen().show(rows)
