"""Grammars of every language are checked with real vocabularies; a hostile one costs its own request alone."""

import asyncio
import json
import re
from dataclasses import replace

import pytest
import pytest_asyncio
from llguidance import LLMatcher
from serin_tokenizer_svc.errors import (
    GrammarBusy,
    GrammarError,
    GrammarLimit,
    GrammarRejected,
    GrammarsUnsupported,
)
from serin_tokenizer_svc.grammar import MAX_GRAMMAR_BYTES, GrammarSource
from serin_tokenizer_svc.grammar_pool import ENTRY_BYTES, GrammarCache, GrammarLimits, GrammarPool, Prepared
from serin_tokenizer_svc.grammar_trial import Vocabulary

LIMITS = GrammarLimits(timeout_s=20.0, num_processes=1)
IMPATIENT = replace(LIMITS, timeout_s=1.5)
SLOW = GrammarSource("json_schema", '{"type": "integer", "multipleOf": 999983}')
"""Takes seconds to open."""
GOOD = GrammarSource("regex", "[a-c]+")


def schema(**members):
    """A JSON schema."""
    return GrammarSource("json_schema", json.dumps(members))


def closed(**properties):
    """A JSON schema of exactly these members."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def nested(levels):
    """A schema of objects inside each other."""
    inner = {"type": "string"}
    for _ in range(levels):
        inner = closed(a=inner)
    return inner


NODE = {"n": closed(children={"type": "array", "items": {"$ref": "#/$defs/n"}})}
ENDLESS = {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]}
ACCEPTED = {
    "object": (schema(**closed(b={"type": "integer"}, a={"enum": ["x"]})), ['{"b":1,"a":"x"}', '{"b": -20, "a": "x"}']),
    "indented": (schema(**closed(a={"type": "null"})), ['{\n    "a": null\n}']),
    "recursive": (schema(**{"$defs": NODE, "$ref": "#/$defs/n"}), ['{"children":[{"children":[]}]}']),
    "exploding regex": (GrammarSource("regex", "(a+)+b"), ["ab", "aaaaaaaab"]),
    "digits": (GrammarSource("regex", r"[\d.]+/\d"), ["1.5/7"]),
    "line": (GrammarSource("regex", "a\nb"), ["a\nb"]),
    "unicode": (GrammarSource("regex", r"\p{L}{1,3}/é"), ["äöü/é"]),
    "choice": (GrammarSource("choice", '["yes", "no (perhaps)", "é\\n", "yes"]'), ["yes", "no (perhaps)", "é\n"]),
    "lark": (GrammarSource("ebnf", 'start: "a" b?\nb: /[0-9]+/'), ["a", "a17"]),
    "gbnf": (GrammarSource("ebnf", 'root ::= "a" b | "c"\nb ::= [0-9]+'), ["a17", "c"]),
    "many members": (schema(**closed(**{f"p{n}": {"type": "boolean"} for n in range(200)})), []),
    "endless": (GrammarSource("ebnf", 'start: "a" start'), []),
    "long literal": (GrammarSource("ebnf", 'start: "' + "x" * 200_000 + '"'), []),
    "many ways": (GrammarSource("regex", "(a?){500}a{500}"), ["a" * 501]),
    "large enum": (schema(enum=[f"value-{n}" for n in range(5000)]), ['"value-4321"']),
}  # fmt: skip
REFUSED = {
    "not JSON": (GrammarSource("json_schema", '{"type":'), "not JSON"),
    "no schema": (GrammarSource("json_schema", "[1]"), "must be an object"),
    "allows nothing": (schema(enum=[]), "^#/enum: allows no text at all"),
    "unsatisfiable": (schema(**closed(a=False)), "^#/required: 'a': allows no text at all"),
    "endless recursion": (schema(**{"$ref": "#"}), "^#: allows no text at all"),
    "endless value": (schema(**closed(a=ENDLESS)), "^#/properties/a/required: 'a': allows no text at all"),
    "unknown type": (schema(type="nonsense"), "^#: Invalid type: nonsense$"),
    "a part of it": (schema(**closed(a={"anyOf": [{"format": "x"}]})), "^#/properties/a/anyOf/0: Unknown format: x$"),
    "a member twice": (GrammarSource("json_schema", '{"enum": [1], "\\u0065num": [2]}'), "has 'enum' twice"),
    "no number": (GrammarSource("json_schema", '{"const": NaN}'), "NaN is no number"),
    "too large a number": (GrammarSource("json_schema", '{"title": 1e999}'), "too large"),
    "remote reference": (schema(**{"$ref": "https://example.com/x.json"}), "does not fetch"),
    "local file": (schema(**{"$ref": "file:///etc/passwd"}), "does not fetch"),
    "not enforceable": (schema(type="array", uniqueItems=True), '^#: cannot be enforced: "uniqueItems"$'),
    "overlapping oneOf": (
        schema(oneOf=[{"type": "integer"}, {"type": "number"}]),
        "^#: oneOf: [^\n]*overlap[^\n]*anyOf$",
    ),
    "reserved": (schema(**{"type": "string", "x-guidance": {"whitespace_pattern": "(.*.*)*"}}), "reserved"),
    "look-ahead": (GrammarSource("regex", "(?=a)b"), "look-around"),
    "backreference": (GrammarSource("regex", r"(a)\1"), "backreferences"),
    "unclosed": (GrammarSource("regex", "(a"), "unclosed group"),
    "empty class": (GrammarSource("regex", r"[^\s\S]"), "no text at all"),
    "no choices": (GrammarSource("choice", "[]"), "at least one"),
    "choices of numbers": (GrammarSource("choice", "[1, 2]"), "list of strings"),
    "unknown rule": (GrammarSource("ebnf", "start: foo"), "foo"),
    "no rule": (GrammarSource("ebnf", "nonsense"), "."),
    "the library's own": (GrammarSource("ebnf", '{"grammars": []}'), "GBNF"),
}
LIMITED = {
    "10^5 choices": GrammarSource("choice", json.dumps([f"value-{n:05}" for n in range(100_000)])),
    "10^4 choices of digits": schema(enum=[f"value-{n}" * 2 for n in range(20_000)]),
    "long text": GrammarSource("regex", "a" * (MAX_GRAMMAR_BYTES + 1)),
    "deep schema": schema(**nested(200)),
    "deep regex": GrammarSource("ebnf", "start: " + "(" * 5000 + '"a"' + ")" * 5000),
    "wide object": schema(
        type="object", properties={f"p{n}": {"type": "string"} for n in range(3000)}, additionalProperties=False
    ),
    "slow to open": SLOW,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(vocabularies):
    """A pool with one process, so that whatever harms it harms the next one."""
    async with GrammarPool(vocabularies["byte_level"].pieces, LIMITS) as checking:
        yield checking


def matches(grammar, text, vocabulary):
    """Whether a prepared grammar allows this text, as the worker would find out."""
    matcher = LLMatcher(vocabulary.inner, grammar, log_level=0)
    return matcher.consume_tokens(vocabulary.inner.greedy_tokenize(text)) and matcher.is_accepting()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ACCEPTED)
async def test_what_is_accepted_means_what_it_says(pool, vocabularies, name):
    """Texts of the language match, and one character more does not."""
    source, texts = ACCEPTED[name]
    grammar = await pool.prepare(source)
    pieces = vocabularies["byte_level"].pieces
    vocabulary = Vocabulary(pieces.rest, sorted(pieces.special))
    for text in texts:
        assert matches(grammar, text, vocabulary), text
        assert not matches(grammar, text + "#", vocabulary), text


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_says_why(pool, name):
    """The reason names what is wrong; the same process checks the next grammar."""
    source, said = REFUSED[name]
    with pytest.raises(GrammarRejected, match=said) as refusal:
        await pool.prepare(source)
    assert pool.children.num_kills == 0
    assert not re.search("%json|no_forcing|coerce", str(refusal.value))


@pytest.mark.parametrize("name", LIMITED)
async def test_what_is_too_much_is_refused_as_such(vocabularies, name):
    """A grammar that would be slow or large is a limit's matter, whichever limit it meets."""
    async with GrammarPool(vocabularies["byte_level"].pieces, IMPATIENT) as pool:
        with pytest.raises(GrammarLimit):
            await pool.prepare(LIMITED[name])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_lenient_schema_loses_what_cannot_be_enforced(pool):
    """The same schema is refused when it is not lenient."""
    strict = schema(type="array", items={"type": "integer"}, uniqueItems=True)
    with pytest.raises(GrammarRejected, match="uniqueItems"):
        await pool.prepare(strict)
    assert "uniqueItems" in await pool.prepare(replace(strict, lenient=True))


@pytest.mark.asyncio(loop_scope="module")
async def test_what_no_context_has_room_for_is_refused(pool):
    """By the place of what is so long, for each caller's own context; what it is by itself is kept all the same."""
    long = schema(type="array", items=closed(a={"type": "string", "minLength": 10**9}), minItems=1)
    assert "start:" in await pool.prepare(long)
    with pytest.raises(GrammarLimit, match=r"^#/items/properties/a/minLength: .* 1000000010 bytes, .* room for 2048"):
        await pool.prepare(long, 2048)
    assert "start:" in await pool.prepare(schema(type="string", minLength=100), 2048)


async def test_what_takes_too_long_is_killed_and_others_go_on(vocabularies):
    """A stuck check ends with its process; the next one is checked by a new process. It is not remembered."""
    async with GrammarPool(vocabularies["byte_level"].pieces, replace(LIMITS, timeout_s=1.5)) as pool:
        for number in range(1, 3):
            with pytest.raises(GrammarLimit, match=r"longer than 1\.5 s"):
                await pool.prepare(SLOW)
            assert pool.children.num_kills == number
        pool.children._timeout_s = LIMITS.timeout_s
        assert "start:" in await pool.prepare(GOOD)


async def test_too_much_memory_ends_one_check(vocabularies):
    """A process that cannot get memory is replaced, and the caller told so."""
    limits = replace(LIMITS, memory_bytes=48 << 20)
    async with GrammarPool(vocabularies["byte_level"].pieces, limits) as pool:
        with pytest.raises(GrammarLimit, match="memory"):
            await pool.prepare(schema(enum=[f"v{n}" for n in range(20_000)]))
        assert "start:" in await pool.prepare(GOOD)


async def test_equal_grammars_are_checked_once(vocabularies):
    """Together or one after the other; one caller's cancel does not take the answer from the others."""
    async with GrammarPool(vocabularies["byte_level"].pieces, LIMITS) as pool:
        asked = [asyncio.create_task(pool.prepare(GOOD)) for _ in range(8)]
        await asyncio.sleep(0)
        asked[0].cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert len(set(answers[1:])) == 1
        assert pool.cache.num_hits == 0
        assert await pool.prepare(GOOD) == answers[1]
        for _ in range(2):
            with pytest.raises(GrammarRejected, match="unclosed"):
                await pool.prepare(GrammarSource("regex", "(a"))
        assert pool.cache.num_hits == 2


async def test_waiting_is_bounded(vocabularies):
    """More checks than may wait are refused at once."""
    limits = replace(LIMITS, num_waiting=1)
    async with GrammarPool(vocabularies["byte_level"].pieces, limits) as pool:
        waiting = asyncio.create_task(pool.prepare(GOOD))
        for _ in range(3):  # a task that asks, and one that checks
            await asyncio.sleep(0)
        assert pool.children.num_waiting == 1
        with pytest.raises(GrammarBusy):
            await pool.prepare(GrammarSource("regex", "b"))
        await waiting


async def test_no_process_is_there_before_the_first_grammar(vocabularies):
    """A mesh that is asked for no grammar pays for none."""
    async with GrammarPool(vocabularies["byte_level"].pieces, LIMITS) as pool:
        assert not pool.children._processes
        await pool.prepare(GOOD)
        assert len(pool.children._processes) == 1


async def test_a_decoder_that_looks_at_neighbours_has_no_grammars(vocabularies):
    """It is said, not tried."""
    async with GrammarPool(vocabularies["word_piece"].pieces, LIMITS) as pool:
        with pytest.raises(GrammarsUnsupported, match="neighbouring"):
            await pool.prepare(GOOD)


@pytest.mark.parametrize("kind", ["byte_fallback", "metaspace", "characters"])
async def test_every_vocabulary_with_bytes_can_follow(vocabularies, kind):
    """Whatever the decoder, a text of the language can be spelled."""
    async with GrammarPool(vocabularies[kind].pieces, LIMITS) as pool:
        assert "start:" in await pool.prepare(GrammarSource("regex", "(the|dog)+"))


def test_the_cache_is_bounded_in_bytes():
    """The least recently used goes first; one that is larger than the whole is not kept."""
    cache = GrammarCache(3 * (ENTRY_BYTES + 100))
    for name in b"abc":
        cache.keep(bytes([name]), Prepared("x" * 100))
    assert cache.find(b"a") is not None
    cache.keep(b"d", GrammarError("y" * 100))
    assert cache.find(b"b") is None
    assert cache.find(b"a") is not None
    assert cache.num_bytes == 3 * (ENTRY_BYTES + 100)
    cache.keep(b"e", Prepared("z" * 10_000))
    assert cache.num_bytes == 0
