"""Rules about names: where aliases, fallbacks and cascades lead, and that each of them ends at a model.

No chain of names can go in a circle: a project's alias leads to a name as its organization knows it, an organization's
to one that all know, a cascade and a fallback to models alone. Knows nothing about lines.
"""

from collections.abc import Collection, Iterator, Mapping

import regex
from serin_mesh.prompt_classifier import PromptClassifier

from serin_control.config.declaration import CascadeConfig, EscalationConfig, MeshConfig
from serin_control.config.yaml_lines import Broken, KeyPath

MAX_LISTED = 12


def broken_routing(config: MeshConfig) -> Iterator[Broken]:
    """Every rule about names that ``config`` breaks."""
    for name, model in config.models.items():
        yield from _fallback(("models", name, "fallback"), name, model.fallback, config.models)
    for name, cascade in config.cascades.items():
        yield from _cascade(("cascades", name), name, cascade, config)
    known = {*config.models, *config.cascades, *(alias for one in config.models.values() for alias in one.aliases)}
    for organization, tenant in config.tenants.items():
        at: KeyPath = ("tenants", organization)
        yield from _aliases((*at, "aliases"), tenant.aliases, known, "a name that all callers know")
        inner = known | set(tenant.aliases)
        for name, project in tenant.projects.items():
            where = (*at, "projects", name, "aliases")
            yield from _aliases(where, project.aliases, inner, "a name that its organization knows")
    yield from _projects(config)


def _fallback(at: KeyPath, name: str, targets: list[str], models: Collection[str]) -> Iterator[Broken]:
    others = [model for model in models if model != name]
    for index, target in enumerate(targets):
        if target == name:
            yield Broken((*at, index), f"{target!r} would fall back to itself", _listed(others))
        elif target not in models:
            yield Broken((*at, index), f"no model is named {target!r}", _listed(others))
        elif target in targets[:index]:
            yield Broken((*at, index), f"{target!r} is there twice", "each model once")


def _cascade(at: KeyPath, name: str, cascade: CascadeConfig, config: MeshConfig) -> Iterator[Broken]:
    if name in config.models:
        yield Broken(at, f"{name!r} is already the name of a model", "a name that means one thing only")
    for model, declared in config.models.items():
        if name in declared.aliases:
            yield Broken(at, f"{name!r} is already an alias of {model!r}", "a name that means one thing only")
    for key, target in (("first", cascade.first), ("then", cascade.then)):
        if target not in config.models:
            what = "a cascade" if target in config.cascades else "no model"
            yield Broken((*at, key), f"{target!r} is {what}", _listed(config.models))
    if cascade.first == cascade.then:
        yield Broken((*at, "then"), f"{cascade.then!r} is the first model too", "another model")
    yield from _escalation((*at, "escalate_when"), cascade.escalate_when)


def _escalation(at: KeyPath, rules: EscalationConfig) -> Iterator[Broken]:
    if rules == EscalationConfig():
        yield Broken(
            at, "no rule: nothing would ever be escalated", f"at least one of {', '.join(type(rules).model_fields)}"
        )
    for index, pattern in enumerate(rules.prompt_matches):
        try:
            regex.compile(pattern)  # type: ignore[no-untyped-call]
        except regex.error as error:
            yield Broken((*at, "prompt_matches", index), f"no regular expression: {error}", "a regular expression")
    if rules.classifier is not None:
        try:
            PromptClassifier.from_text(rules.classifier.weights)
        except ValueError as error:
            accepted = "the text that `serin cascade train` wrote"
            yield Broken((*at, "classifier", "weights"), f"the classifier {error}", accepted)


def _aliases(at: KeyPath, aliases: Mapping[str, str], known: Collection[str], accepted: str) -> Iterator[Broken]:
    for alias, target in aliases.items():
        if alias == target:
            yield Broken((*at, alias), f"{alias!r} would lead to itself", f"another name: {_listed(known)}")
        elif target not in known:
            yield Broken((*at, alias), f"nothing is named {target!r}", f"{accepted}: {_listed(known)}")


def _projects(config: MeshConfig) -> Iterator[Broken]:
    homes: dict[str, str] = {}
    for organization, tenant in config.tenants.items():
        for project in tenant.projects:
            if project in homes:
                wrong = f"project {project!r} is already one of {homes[project]!r}"
                yield Broken(("tenants", organization, "projects", project), wrong, "each project in one organization")
            homes.setdefault(project, organization)


def _listed(names: Collection[str]) -> str:
    listed = sorted(names)
    more = f", … ({len(listed)} in all)" if len(listed) > MAX_LISTED else ""
    return ", ".join(listed[:MAX_LISTED]) + more if listed else "nothing here: there is no other model"
