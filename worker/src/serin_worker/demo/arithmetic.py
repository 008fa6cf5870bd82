"""Arithmetic: sums and differences of numbers from 0 to 99, and which of two numbers is larger.

What held out means here: a tenth of the pairs of numbers never occur in training, in any wording, order or operation.
Their answers follow from the rule alone.
"""

from random import Random

from serin_worker.demo.item import Item, ask, is_held_out

LARGEST = 99

WORDINGS = {
    "sum": (
        "What is {} + {}?",
        "What is {} plus {}?",
        "{} + {} = ?",
        "Add {} and {}.",
        "How much is {} + {}?",
        "What is {}+{}?",
    ),
    "difference": ("What is {} - {}?", "What is {} minus {}?", "{} - {} = ?", "How much is {} - {}?", "What is {}-{}?"),
    "larger": ("Which is larger, {} or {}?", "Which number is larger: {} or {}?", "What is more, {} or {}?"),
}


class Arithmetic:
    """Draws a pair of different numbers and one of three operations; half of all questions are sums."""

    name = "arithmetic"

    def draw(self, random: Random) -> Item:
        """One operation on one pair, in one wording."""
        operation = random.choice(("sum", "sum", "difference", "larger"))
        a, b = random.sample(range(LARGEST + 1), 2)
        pair = f"numbers|{min(a, b)}|{max(a, b)}"
        if operation == "difference":
            a, b = max(a, b), min(a, b)
        answer = {"sum": a + b, "difference": a - b, "larger": max(a, b)}[operation]
        question = random.choice(WORDINGS[operation]).format(a, b)
        return Item(self.name, pair, ask(question), str(answer), is_held_out(pair))
