"""Text transforms: reverse, shout, spell, first and last letter, repeat.

What held out means here: a tenth of the words, real and made up, never occur in training under any transform.
"""

from collections.abc import Callable, Mapping
from random import Random

from serin_worker.demo.item import Item, ask, is_held_out
from serin_worker.demo.word import word

WORDINGS = {
    "reverse": ("Reverse the word {}.", "Write {} backwards.", "What is {} backwards?"),
    "upper": ("Write {} in capital letters.", "Write {} in upper case.", "Shout the word {}."),
    "spell": ("Spell the word {}.", "How do you spell {}?"),
    "first": ("What is the first letter of {}?", "Which letter does {} begin with?"),
    "last": ("What is the last letter of {}?", "Which letter does {} end with?"),
    "repeat": ("Say {} twice.", "Repeat the word {}."),
}

RULES: Mapping[str, Callable[[str], str]] = {
    "reverse": lambda text: text[::-1],
    "upper": str.upper,
    "spell": "-".join,
    "first": lambda text: text[0],
    "last": lambda text: text[-1],
    "repeat": lambda text: f"{text} {text}",
}


class Transforms:
    """Draws a word and one of six transforms, ``reverse`` more often since it is the hardest."""

    name = "transforms"

    def draw(self, random: Random) -> Item:
        """One transform of one word."""
        rule = random.choice(("reverse", "reverse", "upper", "spell", "first", "last", "repeat"))
        text = word(random)
        quoted = f'"{text}"' if random.random() < 0.5 else text
        entity = f"word|{text}"
        question = random.choice(WORDINGS[rule]).format(quoted)
        return Item(self.name, entity, ask(question), RULES[rule](text), is_held_out(entity))
