"""Arguments of requests, as tests write them. Knows nothing about clients or meshes."""

from typing import Any

TINY = "tiny"
"""The model with random weights: printable text, one token per character, never an end by itself."""
COUNTED = "counted"
"""A model of prices, served by a worker that counts what it sends."""


def question(text: str, *, model: str = TINY, **arguments: Any) -> dict[str, Any]:
    """Arguments of a chat completion that asks one question."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **arguments}


def greedy(text: str, *, model: str = TINY, max_tokens: int = 32, **arguments: Any) -> dict[str, Any]:
    """Arguments of a chat completion whose answer is the same each time."""
    return question(text, model=model, max_tokens=max_tokens, temperature=0, **arguments)


def count_words(number: int) -> str:
    """A text whose length grows with ``number``."""
    return " ".join(f"word{index}" for index in range(number * 3 + 1))
