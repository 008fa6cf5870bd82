"""What names mean to whom: a project's aliases hide its organization's, these hide general ones."""

import pytest
from routed import model
from serin_gateway.cascades.cascade import Cascade
from serin_gateway.catalog import Catalog, TenantNames
from serin_gateway.embedding_ask import EmbeddingAsk
from serin_gateway.keys.authenticator import Caller
from serin_gateway.keys.records import Role
from serin_gateway.routing.alike import alike
from serin_gateway.routing.names import find_route, known_names, no_model_fault
from serin_mesh.errors import MeshError, Reason

CATALOG = Catalog(
    [model("mini", aliases=["gpt"]), model("large", fallbacks=["mini", "other"]), model("other")],
    cascades={"smart": Cascade("smart", "mini", "large")},
    tenants={
        ("acme", ""): TenantNames({"chat": "smart", "mini": "large", "large": "mini"}),
        ("acme", "web"): TenantNames({"chat": "mini", "best": "chat"}),
    },
)


def caller(project="p", organization="default", models=()):
    """Somebody of a project."""
    return Caller("key_1", project, Role.APP, organization=organization, models=models)


@pytest.mark.parametrize(
    ("who", "name", "target"),
    [
        (caller(), "gpt", "mini"),
        (caller(), "mini", "mini"),
        (caller("x", "acme"), "chat", "smart"),
        (caller("x", "acme"), "mini", "large"),  # hidden by the organization's alias, which leads to the general name
        (caller("x", "acme"), "large", "mini"),
        (caller("x", "acme"), "gpt", "mini"),
        (caller("web", "acme"), "chat", "large"),  # its own: `mini` as the organization knows it
        (caller("web", "acme"), "best", "smart"),  # its own: `chat` as the organization knows it
        (caller("web", "other"), "gpt", "mini"),  # a project of this name elsewhere
    ],
)
def test_names_by_caller(who, name, target):
    """The nearest alias counts, and leads one level up."""
    route = find_route(CATALOG, who, name)
    assert (route.cascade.name if route.cascade else route.models[0].name) == target
    listed = known_names(CATALOG, who)[name]
    assert listed.name == target


def test_what_may_not_be_asked_does_not_exist():
    """Permission is of the model that a name leads to, whatever the name; of a cascade of both its models."""
    only = caller("x", "acme", models=("mini",))
    assert find_route(CATALOG, only, "large").models[0].name == "mini"
    for name in ("mini", "chat", "smart", "other", "nope"):
        with pytest.raises(MeshError) as failure:
            find_route(CATALOG, only, name)
        assert failure.value.reason is Reason.MODEL_NOT_FOUND
    assert sorted(known_names(CATALOG, only)) == ["gpt", "large"]


@pytest.mark.parametrize(
    ("name", "project", "words"),
    [
        ("mini", "web", None),  # a model's own name, though it means another one to this organization
        ("gpt", "web", "'gpt' is an alias; keys are made for models by their own names: this one is 'mini' now"),
        ("chat", "web", "'chat' is an alias; keys are made for models by their own names: this one is 'large' now"),
        ("chat", "x", "'chat' leads to a cascade; keys are made for models: name both of its own, 'mini' and 'large'"),
        ("smart", "x", "'smart' leads to a cascade"),
        ("nope", "x", "'nope' is no model; accepted: mini, large, other"),
    ],
)
def test_keys_are_made_for_models_by_their_own_names(name, project, words):
    """Who names something else is told what to name."""
    fault = no_model_fault(CATALOG, "acme", project, name)
    assert (fault or "").startswith(words or "")
    assert (fault is None) == (words is None)


def test_fallbacks_are_those_that_the_caller_may_ask():
    """In their order; a cascade's second model has its own."""
    assert [one.name for one in find_route(CATALOG, caller(), "large").models] == ["large", "mini", "other"]
    assert [one.name for one in find_route(CATALOG, caller(models=("large", "other")), "large").models] == [
        "large",
        "other",
    ]
    route = find_route(CATALOG, caller(), "smart")
    assert (route.first.name, [one.name for one in route.models]) == ("mini", ["large", "mini", "other"])


def test_vectors_are_of_the_model_that_was_asked_for():
    """A cascade is refused by name, and nothing stands in."""
    vectors = EmbeddingAsk("smart", ["text"])
    with pytest.raises(MeshError, match="'smart' is a cascade") as failure:
        alike(find_route(CATALOG, caller(), "smart"), vectors)
    assert failure.value.reason is Reason.PARAMETER_UNSUPPORTED
    assert [one.name for one in alike(find_route(CATALOG, caller(), "large"), vectors)] == ["large"]
