"""What names mean to a caller: aliases of its project and organization, general ones, cascades, models.

A project's alias leads to a name as its organization knows it, an organization's to one that all know; so no chain of
names goes in a circle. Knows nothing about what becomes of a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serin_gateway.cascades.cascade import Cascade
from serin_gateway.catalog import Catalog, ServedModel, model_not_found
from serin_gateway.keys.authenticator import Caller


@dataclass(frozen=True, slots=True)
class Route:
    """Where a name leads.

    Attributes:
        asked: the name.
        models: the model that answers, then those that answer where it cannot; of a cascade: its second one.
        cascade: what stands before them; None: nothing.
        first: the first model of the cascade.
    """

    asked: str
    models: Sequence[ServedModel]
    cascade: Cascade | None = None
    first: ServedModel | None = None

    @property
    def begins_with(self) -> ServedModel:
        """The model that is asked first."""
        return self.first or self.models[0]

    @property
    def all_models(self) -> Sequence[ServedModel]:
        """Every model that may be asked, in order."""
        return (self.first, *self.models) if self.first else self.models


def find_route(catalog: Catalog, caller: Caller, name: str) -> Route:
    """Where a name leads for its caller; what may not be asked does not exist.

    Raises:
        MeshError: MODEL_NOT_FOUND.
    """
    target = _meant(catalog, caller.organization, caller.tenant, name)
    if isinstance(target, Cascade) and _may_ask(catalog, caller, target):
        first, then = catalog.find(target.first), catalog.find(target.then)
        return Route(name, (then, *_fallbacks(catalog, caller, then)), target, first)
    if isinstance(target, ServedModel) and caller.may_ask(target.name):
        return Route(name, (target, *_fallbacks(catalog, caller, target)))
    raise model_not_found(name)


def known_names(catalog: Catalog, caller: Caller) -> dict[str, ServedModel | Cascade]:
    """Every name that a caller may ask for, and what it means."""
    names = {*catalog.names, *catalog.cascades}
    for tenant in (catalog.tenants.get((caller.organization, project)) for project in ("", caller.tenant)):
        names.update(tenant.aliases if tenant else ())
    meant = {name: _meant(catalog, caller.organization, caller.tenant, name) for name in sorted(names)}
    return {
        name: target
        for name, target in meant.items()
        if target is not None
        and (_may_ask(catalog, caller, target) if isinstance(target, Cascade) else caller.may_ask(target.name))
    }


def no_model_fault(catalog: Catalog, organization: str, project: str, name: str) -> str | None:
    """Why a key of a project cannot be made for what a name leads to; None: it is a model's own name.

    Keys are for models and not for names, so that an alias that is moved takes no permission along.
    """
    if any(model.name == name for model in catalog.models):
        return None
    target = _meant(catalog, organization, project, name)
    if isinstance(target, Cascade):
        both = f"{target.first!r} and {target.then!r}"
        return f"{name!r} leads to a cascade; keys are made for models: name both of its own, {both}"
    if target is not None:
        return f"{name!r} is an alias; keys are made for models by their own names: this one is {target.name!r} now"
    known = ", ".join(model.name for model in catalog.models) or "none yet"
    return f"{name[:80]!r} is no model; accepted: {known}"


def _meant(catalog: Catalog, organization: str, project: str, name: str) -> ServedModel | Cascade | None:
    for level in (project, ""):
        tenant = catalog.tenants.get((organization, level))
        if tenant is not None:
            name = tenant.aliases.get(name, name)
    return catalog.cascades.get(name) or catalog.names.get(name)


def _may_ask(catalog: Catalog, caller: Caller, cascade: Cascade) -> bool:
    """Whether it may know of a cascade: of both its models."""
    return all(name in catalog.names and caller.may_ask(name) for name in (cascade.first, cascade.then))


def _fallbacks(catalog: Catalog, caller: Caller, model: ServedModel) -> Sequence[ServedModel]:
    if not model.fallbacks or _refuses_fallbacks(catalog, caller):
        return ()
    return [catalog.names[name] for name in model.fallbacks if name in catalog.names and caller.may_ask(name)]


def _refuses_fallbacks(catalog: Catalog, caller: Caller) -> bool:
    for project in (caller.tenant, ""):
        tenant = catalog.tenants.get((caller.organization, project))
        if tenant is not None and tenant.refuse_fallbacks is not None:
            return tenant.refuse_fallbacks
    return False
