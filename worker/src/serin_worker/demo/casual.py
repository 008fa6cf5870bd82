"""Questions as people type them in a hurry: no capital at the start, no mark at the end.

Knows nothing about kinds of question; only training uses it, tests ask in full sentences.
"""

from dataclasses import replace
from random import Random

from serin_worker.demo.item import Item

OPENINGS = ("Add", "Count", "How", "List", "Name", "Reverse", "Say", "Spell", "Tell", "What", "Which", "Write")
"""First words that may lose their capital: no name begins a question with one of them."""

CASUAL_SHARE = 0.12


def casually(item: Item, random: Random) -> Item:
    """The item, its question in some draws without its capital, in some without its mark, in most as it was."""
    *before, question = item.messages
    text = question["content"]
    lowered, bare = random.random() < CASUAL_SHARE, random.random() < CASUAL_SHARE
    if question["role"] != "user" or not text.startswith(OPENINGS):
        return item
    text = text[0].lower() + text[1:] if lowered else text
    text = text.rstrip("?.") if bare else text
    return replace(item, messages=(*before, {"role": "user", "content": text}))
