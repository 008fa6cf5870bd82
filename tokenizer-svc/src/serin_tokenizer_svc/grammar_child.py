"""The process in which callers' grammars are checked (``child.py``). Knows grammars and one vocabulary.

The first job sets it up; bytes travel as text, one character a byte:

    {"tokens": [bytes of each id], "special": [ids], "memory_bytes", "alarm_s"}  ->  {}

and each further one asks for a grammar:

    {"kind", "text", "lenient"}  ->  {"grammar", "least"} or {"refused": why} or {"limit": why}

the latter two with the {"parameter"} to blame, where the grammar has several parts. "least" is the part whose shortest
text is longest: {"num_tokens", "why", "parameter"}.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

from serin_tokenizer_svc.child import Answer, serve
from serin_tokenizer_svc.errors import GrammarError, GrammarLimit, GrammarRejected
from serin_tokenizer_svc.grammar import GrammarSource
from serin_tokenizer_svc.grammar_language import SchemaGrammar, translate
from serin_tokenizer_svc.grammar_trial import Vocabulary, attempt, first_with_fault


def begin(setup: dict[str, Any]) -> tuple[dict[str, Any], Answer | None]:
    """Take in the vocabulary."""
    vocabulary = Vocabulary([token.encode("latin-1") for token in setup["tokens"]], setup["special"])
    return {}, lambda job: _answer(GrammarSource(**job), vocabulary)


def _answer(source: GrammarSource, vocabulary: Vocabulary) -> dict[str, Any]:
    try:
        translation = translate(source)
        try:
            attempt(translation.lark, vocabulary)
        except GrammarError as error:
            raise _blamed(error, translation.schemas, vocabulary) from error
    except GrammarRejected as error:
        return {"refused": str(error), "parameter": error.parameter}
    except GrammarLimit as error:
        return {"limit": str(error), "parameter": error.parameter}
    except MemoryError:
        return {"limit": "the grammar needs too much memory"}
    except RecursionError:
        return {"limit": "the grammar is nested too deep"}
    return {"grammar": translation.lark, "least": _least(translation.schemas, vocabulary)}


def _blamed(error: GrammarError, schemas: Sequence[SchemaGrammar], vocabulary: Vocabulary) -> GrammarError:
    """The error of the first schema that has one by itself, with the place in it; else that of the whole."""
    for schema in schemas:
        try:
            attempt(schema.lark, vocabulary)
        except GrammarError as its:
            place = first_with_fault(schema.parts(), str(its), vocabulary)
            return type(its)(f"{place}: {its}" if place else str(its), schema.parameter)
    return error


def _least(schemas: Sequence[SchemaGrammar], vocabulary: Vocabulary) -> dict[str, Any]:
    longest = max(schemas, key=lambda one: one.schema.least.num_bytes, default=None)
    if longest is None:
        return {"num_tokens": 0, "why": "", "parameter": ""}
    least = longest.schema.least
    num_tokens = math.ceil(least.num_bytes / vocabulary.longest)
    why = f"{least.place}: what is valid has at least {least.num_bytes:.0f} bytes, {num_tokens} tokens"
    return {"num_tokens": num_tokens, "why": why, "parameter": longest.parameter}


if __name__ == "__main__":
    sys.exit(serve(begin))
