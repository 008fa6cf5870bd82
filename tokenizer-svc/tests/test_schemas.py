"""JSON schemas: whatever the matcher lets through is valid, byte by byte; what cannot be enforced has its place."""

import datetime
import itertools
import json
import random
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from serin_tokenizer_svc.errors import GrammarError, GrammarLimit, GrammarRejected
from serin_tokenizer_svc.grammar import GrammarSource
from serin_tokenizer_svc.grammar_language import translate
from serin_tokenizer_svc.grammar_trial import LIMITS, Vocabulary
from serin_tokenizer_svc.schemas.enforceable import enforceable

BYTES = [bytes([byte]) for byte in range(256)]
VOCABULARY = Vocabulary(BYTES, [])
LIKELY = b'"}]:,\\u0tab{[1.-e'
"""What leads a walk into corners: ends, escapes, signs."""


def opened(schema, *, lenient=False):
    """Follows what a schema allows.

    Raises:
        GrammarError: it cannot be enforced.
    """
    translated = translate(GrammarSource("json_schema", json.dumps(schema), lenient))
    matcher = LLMatcher(VOCABULARY.inner, translated.lark, limits=LIMITS, log_level=0)
    if matcher.is_error():
        raise GrammarRejected(matcher.get_error())
    return matcher


def takes(matcher, text):
    """Whether a whole text is allowed."""
    matcher, ids = matcher.deep_copy(), list(text.encode())
    return matcher.validate_tokens(ids) == len(ids) and matcher.consume_tokens(ids) and matcher.is_accepting()


def walked(matcher, draw, num_bytes=200):
    """A text that the matcher allows, or the beginning of one that did not end in time (None)."""
    matcher, text = matcher.deep_copy(), bytearray()
    for _ in range(num_bytes):
        mask = matcher.compute_bitmask()
        allowed = [8 * at + bit for at, byte in enumerate(mask) if byte for bit in range(8) if byte >> bit & 1]
        assert allowed, matcher.get_error()
        if VOCABULARY.end_id in allowed and (len(allowed) == 1 or draw.random() < 0.5):
            return text.decode()
        bytes_ = [one for one in allowed if one != VOCABULARY.end_id and one not in b" \n\t"]
        likely = [one for one in LIKELY if one in bytes_]
        text.append(draw.choice(likely if likely and draw.random() < 0.8 else bytes_ or allowed))
        matcher.consume_token(text[-1])
    return None


NAMES = st.sampled_from(["t", "to", "a", "u0", 'a"', "é"])
NUMBERS = st.one_of(
    st.sampled_from([0, -0.0, 1, 0.001, -0.1, 1.5, 2**53 + 1, -(2**53) - 1, 2**63, -(2**64), 1e-20, 10**17 + 1, 1e17]),
    st.floats(-100, 100, allow_nan=False),
    st.integers(-20, 20),
)
FORMATS = st.sampled_from(["date", "ipv4", "ipv6", "uuid", "date-time"])
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
SCALARS = st.one_of(NUMBERS, st.sampled_from(["", "a", "to", "\n", None, True]))
CONSTANTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=3
)
SIMPLE = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["number", "integer"])}, optional=dict.fromkeys(BOUNDS, NUMBERS)),
    st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={
            "format": FORMATS,
            "minLength": st.integers(0, 4),
            "maxLength": st.integers(0, 40),
            "pattern": st.sampled_from(["^[0-9a]", "a$", "b|é"]),
        },
    ),
    st.fixed_dictionaries({"const": CONSTANTS}),
    st.fixed_dictionaries({"enum": st.lists(CONSTANTS, max_size=3)}),
    st.fixed_dictionaries({"multipleOf": st.sampled_from([1, 3, 0.5])}, optional={"type": st.just("integer")}),
    st.fixed_dictionaries({"type": st.lists(st.sampled_from(["null", "boolean", "integer", "string"]), min_size=1)}),
    st.booleans(),
    st.just({"$ref": "#"}),
    st.just({"$ref": "#/$defs/d~1"}),
)


def compound(inner):
    """Schemas of objects and arrays, and combinations of schemas."""
    members = {
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "additionalProperties": inner,
        "patternProperties": st.dictionaries(st.sampled_from(["^t", "a"]), inner, min_size=1, max_size=1),
        "minProperties": st.integers(0, 3),
        "maxProperties": st.integers(0, 3),
    }
    items = {
        "items": inner,
        "prefixItems": st.lists(inner, max_size=2),
        "minItems": st.integers(0, 3),
        "maxItems": st.integers(0, 3),
    }
    several = st.lists(inner, min_size=1, max_size=2)
    combined = {"allOf": several, "anyOf": several, "oneOf": several}
    return st.one_of(
        st.fixed_dictionaries({"type": st.just("object")}, optional=members),
        st.fixed_dictionaries({"type": st.just("array")}, optional=items),
        st.fixed_dictionaries({}, optional=combined | {"properties": members["properties"]}),
        st.fixed_dictionaries({}, optional=combined | {"additionalProperties": inner, "required": members["required"]}),
    )


SCHEMAS = st.recursive(SIMPLE, compound, max_leaves=6).filter(lambda one: isinstance(one, dict))


@settings(max_examples=120)
@given(SCHEMAS, SCHEMAS, st.integers(0, 1 << 30))
def test_what_is_let_through_is_valid(schema, defined, seed):
    """Any schema that is accepted, any way through it: a reader of JSON and of schemas agrees with the matcher."""
    schema = {**schema, "$defs": {"d/": defined}}
    try:
        matcher = opened(schema)
    except GrammarError:
        return
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    draw = random.Random(seed)
    for _ in range(3):
        text = walked(matcher, draw)
        if text is not None:
            validator.validate(json.loads(text))


def number(**bounds):
    """A schema of numbers."""
    return {"type": "number", **bounds}


def members(rest=True, **properties):
    """A schema of objects with these members, and others as ``rest`` says."""
    return {"type": "object", "properties": properties, "additionalProperties": rest}


ME = {"enum": ["me"]}
EDGES = [
    (number(exclusiveMinimum=0, exclusiveMaximum=0.001), ["0.0005", "0.00001"], ["0", "0.0", "-0", "0.001", "1e-9"]),
    (number(exclusiveMinimum=0, maximum=0.5), ["0.5", "0.01"], ["0", "-0", "0.51"]),
    (number(exclusiveMinimum=1, exclusiveMaximum=1.5), ["1.1", "1.49999"], ["1", "1.0", "1.5"]),
    (number(exclusiveMinimum=-0.1, exclusiveMaximum=0), ["-0.05"], ["-0", "0", "-0.1"]),
    (number(exclusiveMaximum=1), ["0.5", "0.9", "0.99", "-3"], ["1", "1.0", "1.1"]),
    (number(exclusiveMinimum=-1, maximum=5), ["-0.9", "-0.99", "0", "5"], ["-1", "-1.0", "5.1"]),
    (number(minimum=0.123456789012345678, maximum=0.2), ["0.15", "0.2"], ["0.123456789012345", "0.21"]),
    (number(minimum=0.1, maximum=0.1), ["0.1"], ["0.11", "0"]),
    ({"type": "integer", "minimum": -(10**30), "maximum": 2**63 - 1}, ["7", str(2**53)], [str(2**53 + 1), str(10**30)]),
    ({"type": "integer", "exclusiveMinimum": 2**53 - 1}, [str(2**53)], [str(2**53 - 1)]),
    ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, ["4"], ["3"]),
    ({"enum": [2**53, 0.1, 1e-7]}, [str(2**53), "0.1", "0.0000001"], [str(2**53 - 1), "0.10000001"]),
    ({"format": "date"}, ['"2024-02-29"', '"2000-02-29"', "3"], ['"2023-02-29"', '"1900-02-29"', '"0000-01-01"']),
    ({"type": "string", "format": "date-time"}, ['"2024-02-29T00:00:00Z"'], ['"2023-02-29T00:00:00Z"']),
    ({"type": "string", "format": "date", "pattern": "^2"}, ['"2024-02-29"'], ['"1996-02-29"', '"2023-02-29"']),
    (members(to=ME), ['{"to":"me","at":1}', '{"to":"me","\\"":{}}'], ['{"to":"me","\\u0074o":"evil"}']),
    (members(to=ME), ["{}", '{"é":[]}'], ['{"to":"me","to":"me"}', '{"\\u0074o":"evil"}', '{"a\\nb":1}']),
    (members({"type": "null"}, to=ME, t=ME), ['{"t":"me","tox":null,"":null}'], ['{"to":null}', '{"\\u0074":null}']),
    ({**members(a=ME), "allOf": [members(b=ME)]}, ['{"b":"me","c":1}'], ['{"b":1}', '{"\\u0062":1}', '{"\\u0061":1}']),
    ({**members(a=ME), "anyOf": [{"required": ["a"]}]}, ['{"a":"me","b":1}'], ['{"b":1}', '{"a":"me","\\u0061":1}']),
    ({**members(a=ME), "minProperties": 1, "required": ["a"]}, ['{"a":"me"}'], ["{}"]),
    ({**members(a=ME), "minProperties": 2, "required": ["a"]}, ['{"a":"me","b":1}'], ['{"a":"me"}']),
    ({**members(rest=False, a=ME, b=ME), "minProperties": 1}, ['{"b":"me"}'], ["{}"]),
    ({"type": "object", "minProperties": 1}, ['{"b":1}'], ["{}"]),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"$anchor": "it", "items": {"$ref": "#it"}}}}, ["[[]]", "1"], ["[1,"]),
    ({"$ref": "#/properties/a", "properties": {"a": {"enum": [1]}}}, ["1"], ["2"]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "valid", "invalid"), EDGES)
def test_edges(schema, valid, invalid):
    """What is valid can be written, what is not cannot."""
    matcher = opened(schema)
    assert [text for text in valid if not takes(matcher, text)] == []
    assert [text for text in invalid if takes(matcher, text)] == []


UNENFORCEABLE = [
    ({"properties": {"a": {"minimum": 2**53 + 1}}}, "#/properties/a/minimum"),
    ({"items": {"exclusiveMaximum": -(10**30)}}, "#/items/exclusiveMaximum"),
    ({"anyOf": [{"const": 2**53 + 1}]}, "#/anyOf/0/const"),
    ({"enum": [[{"a": 0.12345678901234567}]]}, "#/enum"),
    ({"type": "object", "minProperties": 2}, "#/minProperties"),
    ({**members(a=ME), "minProperties": 1}, "#/minProperties"),
    ({"properties": {"a/b": {"patternProperties": {"^x": {}}}}}, "#/properties/a~1b/patternProperties"),
    ({"allOf": [members(a=ME), members(rest=False, b=ME)]}, "#/allOf/"),
    ({"allOf": [{"multipleOf": 3}, {"multipleOf": 2}]}, "#/allOf/"),
    ({"properties": {"a": {"$ref": "https://example.com/a.json"}}}, "#/properties/a/$ref"),
    ({"properties": {"a": {"$ref": "#/nowhere"}}}, "#/properties/a/$ref"),
    ({"properties": {"a": {"$id": "https://example.com/a.json"}}}, "#/properties/a/$id"),
]


@pytest.mark.parametrize(("schema", "place"), UNENFORCEABLE)
def test_what_cannot_be_enforced_has_its_place(schema, place):
    """A schema is refused at the keyword; a lenient one goes without it."""
    with pytest.raises(GrammarRejected, match=f"^{place.replace('$', '[$]')}[^:]*: "):
        enforceable(schema, lenient=False)
    assert enforceable(schema, lenient=True).least.num_bytes < 20


NESTED = {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]}
NOTHING = [
    (NESTED, "#/required: 'n'"),
    ({"allOf": [{"type": "object", "required": ["n"]}, {"properties": {"n": {"$ref": "#"}}}]}, "#/allOf/0/required: "),
    ({"type": "array", "minItems": 1, "items": {"anyOf": [{"$ref": "#"}, {"enum": []}]}}, "#/minItems"),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "#/maxItems"),
    ({"type": "object", "properties": {"a": {"type": ["array"], "minItems": 1, "items": False}}, "required": ["a"]},
     "#/properties/a/minItems"),
    ({"items": {"anyOf": [{"allOf": [{"$ref": "#/items"}]}, {"type": "null"}]}}, "#/items"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "place"), NOTHING)
@pytest.mark.parametrize("lenient", [False, True])
def test_a_schema_of_which_nothing_is_valid_is_refused(schema, place, lenient):
    """Values without an end, and contradictions, lenient or not: nobody can follow it."""
    with pytest.raises(GrammarRejected, match=rf"^{place}[^:]*: allows no text at all"):
        enforceable(schema, lenient=lenient)


@pytest.mark.parametrize(
    ("schema", "shortest", "place"),
    [
        (True, "0", "#"),
        ({"type": ["string", "null"]}, '""', "#"),
        ({**NESTED, "properties": {"n": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}, '{"n":null}', "#"),
        ({"type": "array", "prefixItems": [{"const": "abc"}], "minItems": 2}, '["abc",0]', "#/prefixItems/0/const"),
        ({"type": "object", "required": ["é"], "minProperties": 2}, '{"é":0,"":0}', "#/minProperties"),
        ({"oneOf": [{"enum": [[1, 2], "abcdef"]}, {"type": "string", "minLength": 4}]}, "[1,2]", "#/oneOf/0/enum"),
    ],
)
def test_the_shortest_text(schema, shortest, place):
    """Its bytes, and the keyword that makes it so long."""
    least = enforceable({"$defs": {}} if schema is True else schema, lenient=False).least
    assert (least.num_bytes, least.place) == (len(shortest.encode()), place)


def test_many_branches_are_a_limit():
    """What combines in more ways than can be looked at is said, not tried."""
    branches = {"anyOf": [{"title": str(n)} for n in range(4)]}
    with pytest.raises(GrammarLimit, match="branches"):
        enforceable({"allOf": [branches, *({**branches, "title": str(n)} for n in range(7))]}, lenient=False)


def test_dates_are_those_of_the_calendar():
    """Every day of the years around which the rule of leap years changes, and none more."""
    pattern = re.compile(enforceable({"format": "date"}, lenient=False).schema["pattern"])
    for year in (1, 4, 100, 400, 1900, 1904, 2000, 2023, 2024, 2100, 2400, 9996, 9999):
        for month, day in itertools.product(range(14), range(33)):
            text = f"{year:04}-{month:02}-{day:02}"
            try:
                datetime.date.fromisoformat(text)
            except ValueError:
                assert not pattern.search(text), text
            else:
                assert pattern.search(text), text


def test_a_lenient_schema_keeps_all_that_can_be_enforced():
    """Beside what is left out, and where its parts cannot be read it is handed on as it is."""
    matcher = opened({**members(a=ME), "minProperties": 5, "uniqueItems": True}, lenient=True)
    assert takes(matcher, '{"a":"me"}')
    assert not takes(matcher, '{"a":"you"}')
    assert not takes(matcher, '{"\\u0061":"you"}')
    odd = {"$id": "https://example.com/a", "properties": {"a": {"$id": "b", "type": "null"}}}
    assert enforceable(odd, lenient=True).schema == odd


KEYWORDS = frozenset(
    re.findall(
        r"\S+",
        """
        $anchor $comment $defs $dynamicAnchor $dynamicRef $id $recursiveRef $schema additionalProperties
        allOf anyOf const contains contentEncoding contentMediaType contentSchema default dependencies
        dependentRequired dependentSchemas deprecated description else enum examples exclusiveMaximum
        exclusiveMinimum format if items maxContains maxItems maxLength maxProperties maximum minContains
        minItems minLength minProperties minimum multipleOf not oneOf pattern patternProperties prefixItems
        properties propertyNames readOnly required then title type unevaluatedItems unevaluatedProperties
        uniqueItems writeOnly
        """,
    )
)
"""Of JSON Schema's drafts since 6; `$ref` means nothing by itself."""


def test_each_keyword_that_is_always_refused_is_documented():
    """By name, and no other keyword, whatever it says."""
    written = (Path(__file__).resolve().parents[2] / "docs" / "structured-output.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| (.*), other formats than .*\| refused \|$", written, re.MULTILINE)
    values = (True, 1, "date", "string", [], {}, {"a": ["b"]}, ["a"], [{}], False)
    refused = {keyword for keyword in KEYWORDS if not any(is_enforced({keyword: value}) for value in values)}
    assert set(re.findall(r"`(.+?)`", row)) == refused


def is_enforced(schema):
    """Whether all of a schema holds."""
    try:
        opened(schema)
    except GrammarError:
        return False
    return True
