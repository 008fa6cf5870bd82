"""Counting: the numbers from one to another, the corpus's longest answers.

What held out means here: a tenth of the (first, last) pairs never occur in training.
"""

from random import Random

from serin_worker.demo.item import Item, ask, is_held_out

LARGEST = 99
LONGEST = 24
"""Most numbers in one answer; about 70 tokens."""

WORDINGS = ("Count from {} to {}.", "Please count from {} to {}.", "List the numbers from {} to {}.")


class Counting:
    """Draws a stretch of 2 to 24 whole numbers below 100."""

    name = "counting"

    def draw(self, random: Random) -> Item:
        """One stretch; short ones are drawn more often."""
        length = min(random.randint(2, LONGEST), random.randint(2, LONGEST))
        first = random.randint(0, LARGEST + 1 - length)
        last = first + length - 1
        entity = f"count|{first}|{last}"
        question = random.choice(WORDINGS).format(first, last)
        answer = " ".join(str(number) for number in range(first, last + 1))
        return Item(self.name, entity, ask(question), answer, is_held_out(entity))
