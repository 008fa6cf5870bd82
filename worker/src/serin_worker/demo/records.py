"""Small JSON answers: an object with the fields a sentence names.

What held out means here: a tenth of the names, real and made up, never occur in training. Answers are JSON as
``json.dumps`` writes it.
"""

import json
from random import Random

from serin_worker.demo.item import Item, ask, is_held_out
from serin_worker.demo.word import CITIES, name

COLOURS = ("red", "blue", "green", "black", "white", "yellow")

SHAPES = {
    "age": (
        "Write JSON: name {name}, age {age}.",
        "{name} is {age} years old. Answer in JSON.",
        "Make a JSON object with name {name} and age {age}.",
    ),
    "city": (
        "Write JSON: name {name}, city {city}.",
        "{name} lives in {city}. Answer in JSON.",
        "Make a JSON object with name {name} and city {city}.",
    ),
    "likes": (
        "{name} likes {one} and {two}. Answer in JSON.",
        "Write JSON: name {name}, likes {one} and {two}.",
    ),
    "member": (
        "{name} is {age} and lives in {city}. Answer in JSON.",
        "Write JSON: name {name}, age {age}, city {city}.",
    ),
}
FIELDS = {"age": ("name", "age"), "city": ("name", "city"), "member": ("name", "age", "city")}


class Records:
    """Draws a person and two or three of their properties."""

    name = "json"

    def draw(self, random: Random) -> Item:
        """One person described in one wording, answered as a JSON object."""
        shape = random.choice(tuple(SHAPES))
        one, two = random.sample(COLOURS, 2)
        person = {
            "name": name(random),
            "age": random.randint(1, 99),
            "city": random.choice(CITIES),
            "one": one,
            "two": two,
        }
        entity = f"name|{person['name']}"
        if shape == "likes":
            record: dict[str, object] = {"name": person["name"], "likes": [one, two]}
        else:
            record = {field: person[field] for field in FIELDS[shape]}
        question = random.choice(SHAPES[shape]).format(**person)
        return Item(self.name, entity, ask(question), json.dumps(record), is_held_out(entity))
