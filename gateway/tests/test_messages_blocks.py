"""Our schemas beside the installed Anthropic SDK's types: what it sends back of an answer is taken, nulls included."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from anthropic import types
from anthropic.types import beta, parsed_message
from pydantic import BaseModel, ValidationError
from serin_gateway.rest.anthropic import schemas
from typing_extensions import get_type_hints, is_typeddict

BLOCKS = {
    "text": schemas.TextBlock,
    "tool_use": schemas.ToolUseBlock,
    "tool_result": schemas.ToolResultBlock,
    "thinking": schemas.ThinkingBlock,
}
THINKING = dict.fromkeys(("enabled", "adaptive", "disabled"), schemas.ThinkingBody)
CHOICES = dict.fromkeys(("auto", "any", "tool", "none"), schemas.ToolChoiceBody)
UNIONS = [
    *((one, BLOCKS) for one in (types.ContentBlockParam, types.ContentBlock)),
    *((one, BLOCKS) for one in (beta.BetaContentBlockParam, beta.BetaContentBlock)),
    (parsed_message.ParsedContentBlock, BLOCKS),
    (types.ThinkingConfigParam, THINKING),
    (beta.BetaThinkingConfigParam, THINKING),
    (types.ToolChoiceParam, CHOICES),
    (beta.BetaToolChoiceParam, CHOICES),
]
ALONE = [
    (types.ToolParam, schemas.ToolBody),
    (beta.BetaToolParam, schemas.ToolBody),
    (types.MetadataParam, schemas.MetadataBody),
    (beta.BetaMetadataParam, schemas.MetadataBody),
]


def members(kind: Any) -> dict[str, Any]:
    """What a type of the SDK, a dictionary's or a model, has, and of which type each is."""
    if is_typeddict(kind):
        return get_type_hints(kind)
    return {name: field.annotation for name, field in kind.model_fields.items()}


def kinds(union: Any) -> Iterator[Any]:
    """The types that a union is made of, however deep."""
    if is_typeddict(union) or (isinstance(union, type) and issubclass(union, BaseModel)):
        yield union
    for one in get_args(union):
        yield from kinds(one)


def pairs() -> Iterator[tuple[Any, type[BaseModel]]]:
    """Each type of the SDK, and ours that takes it."""
    for union, ours in UNIONS:
        found = set()
        for kind in kinds(union):
            tag = members(kind).get("type")
            name = get_args(tag)[0] if get_origin(tag) is Literal else None
            if name in ours and kind not in found:
                found.add(kind)
                yield kind, ours[name]
        assert found, union
    yield from ALONE


def refuses_null(ours: type[BaseModel], name: str) -> bool:
    """Whether a member may not be null."""
    try:
        ours.model_validate({name: None})
    except ValidationError as refusal:
        return any(one["loc"][0] == name for one in refusal.errors())
    return False


@pytest.mark.parametrize(("theirs", "ours"), list(pairs()), ids=lambda one: one.__name__)
def test_each_member_of_the_sdk_is_known_and_may_be_null(theirs, ours):
    """A member that a new SDK adds fails here until somebody decides about it: `model_dump()` writes all of them."""
    assert set(members(theirs)) - set(ours.model_fields) == set()
    optional = [name for name in members(theirs) if not ours.model_fields[name].is_required()]
    assert [name for name in optional if refuses_null(ours, name)] == []
