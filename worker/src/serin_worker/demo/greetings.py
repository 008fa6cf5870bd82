"""Greetings: the few things people say to any chat window before they ask something.

Never measured: there is nothing to hold out.
"""

from random import Random

from serin_worker.demo.item import Item, ask

ABOUT = "I am the Serin demo model. Ask me about capitals, sums, words or JSON."
REPLIES = {
    ("Hello", "Hello!", "Hi", "Hi!", "Hello there!", "Good morning!", "hi", "hello"): "Hello! How can I help?",
    ("Thanks!", "Thank you.", "Thank you!", "thanks"): "You are welcome!",
    ("Who are you?", "What are you?", "What can you do?", "Help", "What is your name?", "Introduce yourself."): ABOUT,
    ("How are you?", "How are you today?"): "I am fine, thank you.",
    ("Bye", "Goodbye!", "Bye!"): "Goodbye!",
}


class Greetings:
    """Draws a greeting and its fixed reply."""

    name = "greetings"

    def draw(self, random: Random) -> Item:
        """One greeting."""
        texts, reply = random.choice(tuple(REPLIES.items()))
        text = random.choice(texts)
        return Item(self.name, f"greeting|{text}", ask(text), reply, held_out=False)
