"""What happens to a parameter: supported, neutral, refused by name, or unknown.

A neutral one is accepted where its value cannot change the answer: at its documented default, or always. Nothing is
ever silently ignored. Knows nothing about what supported parameters do.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from serin_mesh.errors import MeshError, Reason

from serin_gateway.ask import refuse
from serin_gateway.repeats import repeated_key
from serin_gateway.rest.body_size import size_fault

MAX_UNKNOWN_NAME = 64

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Neutral:
    """A parameter that is accepted for some values, all of them without effect on the answer.

    Attributes:
        accepts: whether a value is one of them.
        accepted: which those are, for people; empty: none, null alone is accepted.
        why: why these have no effect and others are refused, for the reference.
    """

    accepts: Callable[[Any], bool]
    accepted: str
    why: str


def any_text(why: str) -> Neutral:
    """Accepted for every string."""
    return Neutral(lambda value: isinstance(value, str), "any string", why)


def any_object(why: str) -> Neutral:
    """Accepted for every object."""
    return Neutral(lambda value: isinstance(value, dict), "any object", why)


def only(*values: object, why: str) -> Neutral:
    """Accepted for exactly these values."""
    return Neutral(
        lambda value: any(type(value) is type(one) and value == one for one in values),
        " or ".join(orjson.dumps(one).decode() for one in values),
        why,
    )


NO_GRAMMAR = "structured output is not part of this endpoint yet"
OLD_TOOLS = "deprecated by its own API; send tools instead"

COMMON: Mapping[str, Neutral] = {
    "metadata": any_object("a note of the caller's; it is kept nowhere"),
    "safety_identifier": any_text("nothing here looks at it"),
    "service_tier": only("auto", "default", why="there is one tier"),
    "store": only(False, why="answers are not stored"),
    "prompt_cache_options": any_object("prompts are cached anyway"),
    "prompt_cache_retention": any_text("prompts are cached anyway"),
    "previous_response_id": any_text("keeps related requests on one version; no answer is stored under it"),
}

CHAT: Mapping[str, Neutral] = {
    **COMMON,
    "audio": only(why="answers are text"),
    "function_call": only("none", "auto", why=OLD_TOOLS),
    "functions": only([], why=OLD_TOOLS),
    "modalities": only(["text"], why="answers are text"),
    "moderation": only(why="no input is moderated"),
    "prediction": only(why="predicted outputs are not supported"),
    "verbosity": only("medium", why="no model here is trained for it"),
    "web_search_options": only(why="nothing is searched"),
    "best_of": only(1, why="it belongs to completions"),
}

COMPLETIONS: Mapping[str, Neutral] = {
    **COMMON,
    "best_of": only(1, why="no answers are ranked against each other; n gives several"),
    "suffix": only("", why="no model here fills in the middle"),
}

RESPONSES: Mapping[str, Neutral] = {
    "access_programs": only(why="there are no such programs here"),
    "background": only(False, why="an answer is made while its client waits"),
    "context_management": only([], why="nothing is left out of a conversation"),
    "conversation": only(why="conversations go on by previous_response_id"),
    "image": only(why="answers are text"),
    "moderation": only(why="no input is moderated"),
    "prompt": only(why="no prompts are kept here; send instructions and input"),
    "prompt_cache_options": Neutral(
        lambda value: isinstance(value, dict) and not value.get("prewarm"),
        "any object without prewarm",
        "prompts are cached anyway",
    ),
    "prompt_cache_retention": COMMON["prompt_cache_retention"],
    "service_tier": COMMON["service_tier"],
    "truncation": only("disabled", why="nothing is left out of a conversation"),
}


def parse(
    model: type[Body], neutral: Mapping[str, Neutral], text: bytes, unknown: Literal["refuse", "warn"] = "refuse"
) -> tuple[Body, list[str]]:
    """A request body, and the names of unknown parameters that the key's owner wants to be warned of only.

    The model keeps members that it does not know; ``neutral`` are those that are accepted without effect. Members
    inside of objects are named by their place.

    Raises:
        MeshError: MALFORMED_BODY; PARAMETER_INVALID, _UNSUPPORTED or _UNKNOWN with the parameter's name.
    """
    raw = parse_object(text)
    try:
        body = model.model_validate(raw, extra="allow" if unknown == "warn" else None)
    except ValidationError as error:
        raise _translate(error, raw) from None
    ignored = list(_unknown_inside(body)) if unknown == "warn" else []
    for name, value in (body.__pydantic_extra__ or {}).items():
        if name in neutral:
            if value is not None and not neutral[name].accepts(value):
                raise _unsupported(name, neutral[name].accepted)
        elif unknown == "warn":
            ignored.append(name)
        else:
            shown = name[:MAX_UNKNOWN_NAME]
            raise refuse(shown, "this parameter is not known here", Reason.PARAMETER_UNKNOWN)
    return body, ignored


def parse_exact(model: type[Body], text: bytes) -> Body:
    """A body of which every member is known.

    Raises:
        MeshError: MALFORMED_BODY; PARAMETER_INVALID or PARAMETER_UNKNOWN with the member's name.
    """
    raw = parse_object(text)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise _translate(error, raw) from None


def parse_object(text: bytes) -> dict[str, Any]:
    """A JSON object of bounded depth.

    Raises:
        MeshError: MALFORMED_BODY.
    """
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MeshError(Reason.MALFORMED_BODY, f"the body is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise MeshError(Reason.MALFORMED_BODY, "the body must be a JSON object")
    fault = size_fault(text, raw)
    if fault:
        raise MeshError(Reason.MALFORMED_BODY, fault)
    twice = repeated_key(text, raw)
    if twice is not None:
        shown = twice[:MAX_UNKNOWN_NAME]
        raise MeshError(Reason.MALFORMED_BODY, f"an object of the body has {shown!r} twice", parameter=shown)
    return raw


def _unknown_inside(body: BaseModel, place: str = "") -> Iterator[str]:
    """Where objects inside of a body have members that nobody knows."""
    for name, field in type(body).model_fields.items():
        inner = f"{place}{field.alias or name}"
        for where, one in _objects(getattr(body, name), inner):
            yield from (f"{where}.{extra}" for extra in one.__pydantic_extra__ or ())
            yield from _unknown_inside(one, f"{where}.")


def _objects(value: Any, place: str) -> Iterator[tuple[str, BaseModel]]:
    """An object, or those of a list of them; the items of a list are of one kind."""
    if isinstance(value, BaseModel):
        yield place, value
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        yield from ((f"{place}[{at}]", one) for at, one in enumerate(value))


def _unsupported(name: str, accepted: str) -> MeshError:
    also = f" (accepted: {accepted}, or left out)" if accepted else ""
    return refuse(name, f"this value is not supported{also}", Reason.PARAMETER_UNSUPPORTED)


_HAS_MORE = re.compile(r"tools\[[0-9]+\]\.type|text\.verbosity|reasoning\.(context|mode)")
"""Members for which the API has more values than are supported here."""
_MEDIA = ("image_url", "input_audio", "file", "video_url", "audio_url", "image", "refusal")


def _translate(error: ValidationError, raw: dict[str, Any]) -> MeshError:
    """The first problem, under the name that the client wrote."""
    problems = error.errors(include_url=False)
    places = [(*_locate(one["loc"], raw, is_missing=one["type"] == "missing"), one) for one in problems]
    name, value, problem = max(places, key=_telling)
    if problem["type"] == "extra_forbidden":
        return refuse(name[:128], "this member is not known here", Reason.PARAMETER_UNKNOWN)
    if problem["type"] == "union_tag_invalid" and isinstance(value, dict):
        wrong = f"{value.get('type')!r:.40} is not supported; accepted: {problem['ctx']['expected_tags']}"
        return refuse(f"{name}.type", wrong, Reason.PARAMETER_UNSUPPORTED)
    if problem["type"] == "union_tag_not_found":
        return refuse(f"{name}.type", "is missing")
    if problem["type"] == "missing":
        return refuse(name, "is missing")
    if name.endswith("].type") and value in _MEDIA:
        return refuse(
            name, f"content of type {value!r} is not supported; accepted: 'text'", Reason.PARAMETER_UNSUPPORTED
        )
    if problem["type"] == "model_type":
        return refuse(name, f"{_shown(value)} is not accepted; accepted: an object")
    if problem["type"] == "too_short":
        return refuse(name, "is empty; accepted: at least one")
    if name == "seed" and isinstance(value, int | float) and abs(value) >= 2**63:
        return refuse(name, f"{value:.4g} is not accepted; accepted: an integer of 64 bits")
    if problem["type"] in ("none_required",):
        return _unsupported(name, "")
    if problem["type"] == "literal_error":
        if name == "stream_options.include_obfuscation":
            return _unsupported(name, "false")
        accepted = problem["msg"].removeprefix("Input should be ")
        if _HAS_MORE.fullmatch(name):
            return refuse(name, f"{value!r:.40} is not supported; accepted: {accepted}", Reason.PARAMETER_UNSUPPORTED)
        return refuse(name, f"{value!r:.40} is not accepted; accepted: {accepted}")
    return refuse(name, f"{_shown(value)} is not accepted: {problem['msg'][:1].lower()}{problem['msg'][1:]}")


def _telling(found: tuple[str, Any, Any]) -> tuple[int, bool]:
    """How much a problem says: the deepest one is what the client meant, and of an object its type tells more.

    A type that is not known here has other members, too: what is wrong with those follows from it.
    """
    name, value, problem = found
    depth = name.count(".") + name.count("[")
    is_tag = problem["type"] == "union_tag_invalid" and isinstance(value, dict)
    return depth, is_tag or (problem["type"] == "literal_error" and name.endswith("].type"))


def _locate(path: tuple[int | str, ...], raw: Any, *, is_missing: bool) -> tuple[str, Any]:
    """A problem's place as `messages[0].content`, and the value there; names of types on the way are left out."""
    name, value = "", raw
    for step, behind in zip(path, (*path[1:], None), strict=True):
        if isinstance(value, dict) and isinstance(step, str):
            if behind in value and not isinstance(value.get(step), dict):
                continue  # a type may be called as one of its members: of `text`, `text` or what stands beside it
            if step in value:
                name, value = f"{name}.{step}" if name else step, value[step]
            elif is_missing and step == path[-1]:
                return (f"{name}.{step}" if name else step), None
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            name, value = f"{name}[{step}]", value[step]
    return name, value


def _shown(value: Any) -> str:
    kind = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}.get(
        type(value)
    )
    return kind or f"{value!r:.40}"
