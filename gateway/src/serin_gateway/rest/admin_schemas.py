"""Bodies of the admin API: names, types and ranges. Knows nothing about what becomes of them."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serin_gateway.keys.records import DEFAULT_PROJECT, Ability, Role
from serin_gateway.rest.schemas import Many

_NAME = r"^[a-z0-9._-]{1,64}$"
Name = Annotated[str, Field(pattern=_NAME)]
_Role = Annotated[Role, Field(strict=False)]  # JSON has no members of enumerations, only their texts
_Ability = Annotated[Ability, Field(strict=False)]
Rate = Annotated[int, Field(ge=0, le=2**32 - 1)]


def is_name(text: str) -> bool:
    """Whether a project or an organization may be called so."""
    return re.fullmatch(_NAME[1:-1], text) is not None


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class LimitsBody(_Body):
    """Limits; 0: none."""

    requests_per_minute: Rate = Field(0, description="Requests a minute.")
    tokens_per_minute: Rate = Field(0, description="Tokens a minute, prompt and answer together.")
    concurrent_requests: Rate = Field(0, description="Requests at the same time.")
    tokens_per_day: int = Field(0, ge=0, lt=2**53, description="Tokens a calendar day (UTC).")
    money_per_month: int = Field(0, ge=0, le=10**12, description="Micro-units of the currency a calendar month (UTC).")


class KeyBody(_Body):
    """`POST /admin/keys`."""

    role: _Role = Field(Role.APP, description="app, viewer, operator or admin.")
    name: str = Field("", max_length=128, description="What to remember it by, on one line.")
    project: Name = Field(DEFAULT_PROJECT, description="Project that it belongs to.")
    limits: LimitsBody | None = Field(None, description="Limits of its own; left out: the mesh's defaults.")
    expires_days: int | None = Field(None, ge=1, le=36_500, description="Days until it ends; left out: never.")
    abilities: Many[_Ability] = Field(
        default_factory=list,
        max_length=8,
        description="What it is made for: inference, models, feedback, monitoring, administration; empty: all that its "
        "role may.",
    )
    models: Many[Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        default_factory=list,
        max_length=256,
        description="Models that it may ask, by their own names and no aliases; empty: all.",
    )
    unknown: Literal["refuse", "warn"] = Field("refuse", description="What happens to a parameter nobody knows.")
    shadow: bool = Field(True, description="Whether its answers may be scored again to compare versions.")


class OrganizationBody(_Body):
    """`PUT /admin/organizations/{organization}`."""

    limits: LimitsBody = Field(default_factory=LimitsBody, description="Limits of all its projects together.")


class ProjectBody(_Body):
    """`PUT /admin/projects/{project}`."""

    organization: Name | None = Field(None, description="Whose it is; this never changes. Left out: the mesh's own.")
    limits: LimitsBody = Field(default_factory=LimitsBody, description="Limits of all its keys together.")
