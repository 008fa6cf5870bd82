"""Models as gRPC callers are told them: each with the names by which this caller may ask for it. Knows no pipeline."""

from collections.abc import Callable, Mapping

from serin.inference.v1 import inference_pb2

from serin_gateway.cascades.cascade import Cascade
from serin_gateway.catalog import Catalog, ServedModel


def model_descriptions(
    catalog: Catalog, names: Mapping[str, ServedModel | Cascade], serves: Callable[[ServedModel], bool]
) -> list[inference_pb2.ModelDescription]:
    """One for each model and cascade that some name leads to, by its own name.

    Args:
        catalog: what there is.
        names: what this caller may ask for.
        serves: whether a model answers now.
    """
    aliases: dict[str, list[str]] = {}
    targets: dict[str, ServedModel | Cascade] = {}
    for name, target in names.items():
        targets[target.name] = target
        aliases.setdefault(target.name, []).extend([name] if name != target.name else [])
    return [_description(catalog, targets[name], aliases[name], serves) for name in sorted(targets)]


def _description(
    catalog: Catalog, target: ServedModel | Cascade, aliases: list[str], serves: Callable[[ServedModel], bool]
) -> inference_pb2.ModelDescription:
    if isinstance(target, ServedModel):
        return inference_pb2.ModelDescription(
            name=target.name,
            aliases=aliases,
            context_length=target.context_length,
            ready=serves(target),
            embedding_dimension_count=target.num_dimensions,
        )
    models = [catalog.find(one) for one in (target.first, target.then)]
    return inference_pb2.ModelDescription(
        name=target.name,
        aliases=aliases,
        context_length=max(model.context_length for model in models),
        ready=any(map(serves, models)),
        cascade_models=[model.name for model in models],
    )
