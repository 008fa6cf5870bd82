"""The process in which callers' grammars are checked (``child.py``). Knows grammars and one vocabulary.

The first job sets it up; bytes travel as text, one character a byte:

    {"tokens": [bytes of each id], "special": [ids], "memory_bytes", "alarm_s"}  ->  {}

and each further one asks for a grammar:

    {"kind", "text", "lenient"}  ->  {"grammar"} or {"refused": why} or {"limit": why}

the latter two with the {"parameter"} to blame, where the grammar has several parts.
"""

import sys
from typing import Any

from serin_tokenizer_svc.child import Answer, serve
from serin_tokenizer_svc.errors import GrammarError, GrammarLimit, GrammarRejected
from serin_tokenizer_svc.grammar import GrammarSource
from serin_tokenizer_svc.grammar_language import each_argument, translate
from serin_tokenizer_svc.grammar_trial import Vocabulary, attempt


def begin(setup: dict[str, Any]) -> tuple[dict[str, Any], Answer | None]:
    """Take in the vocabulary."""
    vocabulary = Vocabulary([token.encode("latin-1") for token in setup["tokens"]], setup["special"])
    return {}, lambda job: _answer(GrammarSource(**job), vocabulary)


def _answer(source: GrammarSource, vocabulary: Vocabulary) -> dict[str, Any]:
    try:
        grammar = translate(source)
        try:
            attempt(grammar, vocabulary)
        except GrammarError as error:
            raise _blamed(error, source, vocabulary) from error
    except GrammarRejected as error:
        return {"refused": str(error), "parameter": error.parameter}
    except GrammarLimit as error:
        return {"limit": str(error), "parameter": error.parameter}
    except MemoryError:
        return {"limit": "the grammar needs too much memory"}
    except RecursionError:
        return {"limit": "the grammar is nested too deep"}
    return {"grammar": grammar}


def _blamed(error: GrammarError, source: GrammarSource, vocabulary: Vocabulary) -> GrammarError:
    """The error of the first part that has one by itself; else that of the whole."""
    for parameter, part in each_argument(source):
        try:
            attempt(part, vocabulary)
        except GrammarError as its:
            its.parameter = parameter
            return its
    return error


if __name__ == "__main__":
    sys.exit(serve(begin))
