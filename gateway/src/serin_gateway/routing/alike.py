"""Which models of a route understand an ask: ids mean something in one vocabulary, vectors are of one model."""

from collections.abc import Sequence

from serin_mesh.errors import Reason

from serin_gateway.ask import Ask, TokenPrompt, refuse
from serin_gateway.catalog import ServedModel
from serin_gateway.routing.names import Route


def alike(route: Route, ask: Ask) -> Sequence[ServedModel]:
    """The route's models that may be asked this; text is understood by all of them.

    Raises:
        MeshError: PARAMETER_UNSUPPORTED, ids for a cascade whose models have two vocabularies; vectors of a cascade.
    """
    if not ask.may_change_model:
        if route.cascade is not None:
            why = f"{route.asked[:80]!r} is a cascade of models that generate text, and computes no embeddings"
            raise refuse("model", why, Reason.PARAMETER_UNSUPPORTED)
        return route.models[:1]
    names_ids = bool(ask.sampling.logit_bias or ask.sampling.stop_token_ids)
    if not names_ids and not any(isinstance(one, TokenPrompt) for one in ask.inputs):
        return route.models
    first = _vocabularies(route.begins_with)
    same = [model for model in route.models if len(first | _vocabularies(model)) == 1]
    if route.cascade is None:
        return [route.models[0], *(model for model in same if model is not route.models[0])]
    if route.models[0] not in same:
        why = f"{route.asked[:80]!r} is a cascade whose models have different vocabularies; send text, and no ids"
        raise refuse("model", why, Reason.PARAMETER_UNSUPPORTED)
    return same


def _vocabularies(model: ServedModel) -> set[str]:
    return {lane.vocabulary_digest for lane in model.lanes if lane.is_ready}
