"""Facts: capitals, continents, colours, chemical symbols, opposites.

What held out means here: a fact cannot be guessed, so every fact is taught, but for most facts one of its wordings is
kept for the test. Held-out questions ask for a known fact in words that were never combined with it in training.
"""

from random import Random

from serin_worker.demo.item import Item, ask, hash_of, is_held_out

COUNTRIES = {
    "Argentina": ("Buenos Aires", "South America"),
    "Australia": ("Canberra", "Oceania"),
    "Austria": ("Vienna", "Europe"),
    "Belgium": ("Brussels", "Europe"),
    "Brazil": ("Brasilia", "South America"),
    "Canada": ("Ottawa", "North America"),
    "Chile": ("Santiago", "South America"),
    "China": ("Beijing", "Asia"),
    "Cuba": ("Havana", "North America"),
    "Denmark": ("Copenhagen", "Europe"),
    "Egypt": ("Cairo", "Africa"),
    "Finland": ("Helsinki", "Europe"),
    "France": ("Paris", "Europe"),
    "Germany": ("Berlin", "Europe"),
    "Ghana": ("Accra", "Africa"),
    "Greece": ("Athens", "Europe"),
    "Hungary": ("Budapest", "Europe"),
    "Iceland": ("Reykjavik", "Europe"),
    "India": ("New Delhi", "Asia"),
    "Ireland": ("Dublin", "Europe"),
    "Italy": ("Rome", "Europe"),
    "Japan": ("Tokyo", "Asia"),
    "Kenya": ("Nairobi", "Africa"),
    "Mexico": ("Mexico City", "North America"),
    "Morocco": ("Rabat", "Africa"),
    "Nepal": ("Kathmandu", "Asia"),
    "New Zealand": ("Wellington", "Oceania"),
    "Norway": ("Oslo", "Europe"),
    "Peru": ("Lima", "South America"),
    "Poland": ("Warsaw", "Europe"),
    "Portugal": ("Lisbon", "Europe"),
    "Senegal": ("Dakar", "Africa"),
    "South Korea": ("Seoul", "Asia"),
    "Spain": ("Madrid", "Europe"),
    "Sweden": ("Stockholm", "Europe"),
    "Thailand": ("Bangkok", "Asia"),
    "Turkey": ("Ankara", "Asia"),
    "Ukraine": ("Kyiv", "Europe"),
    "Uruguay": ("Montevideo", "South America"),
    "Vietnam": ("Hanoi", "Asia"),
}
COLOURS = {
    "a banana": "yellow", "a lemon": "yellow", "the sun": "yellow", "a tomato": "red", "blood": "red",
    "a strawberry": "red", "grass": "green", "a frog": "green", "a cucumber": "green", "the sky": "blue",
    "the sea": "blue", "snow": "white", "milk": "white", "salt": "white", "coal": "black", "a raven": "black",
    "chocolate": "brown", "a carrot": "orange", "a pumpkin": "orange", "an elephant": "grey",
}  # fmt: skip
SYMBOLS = {
    "hydrogen": "H", "helium": "He", "carbon": "C", "nitrogen": "N", "oxygen": "O", "sodium": "Na", "iron": "Fe",
    "copper": "Cu", "silver": "Ag", "gold": "Au", "lead": "Pb", "tin": "Sn", "zinc": "Zn", "neon": "Ne",
    "calcium": "Ca", "potassium": "K",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "light": "dark", "old": "new", "open": "closed", "rich": "poor",
    "wet": "dry", "full": "empty", "early": "late", "hard": "soft", "high": "low", "near": "far", "up": "down",
    "happy": "sad", "day": "night", "left": "right", "loud": "quiet",
}  # fmt: skip

WORDINGS = {
    "capital": (
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "Name the capital of {}.",
        "Tell me the capital city of {}.",
        "Capital of {}?",
    ),
    "country": (
        "Which country has the capital {}?",
        "{} is the capital of which country?",
        "What country is {} the capital of?",
        "Name the country whose capital is {}.",
    ),
    "continent": (
        "On which continent is {}?",
        "Which continent is {} in?",
        "Name the continent of {}.",
        "Where in the world is {}?",
    ),
    "colour": (
        "What colour is {}?",
        "Tell me the colour of {}.",
        "Which colour does {} have?",
        "Name the colour of {}.",
    ),
    "symbol": (
        "What is the chemical symbol of {}?",
        "Which symbol stands for {}?",
        "Name the symbol for {}.",
        "What is the symbol of the element {}?",
    ),
    "opposite": (
        "What is the opposite of {}?",
        "Name the opposite of {}.",
        "Which word means the opposite of {}?",
        "Tell me the opposite of {}.",
    ),
}

TESTED_FACTS_SHARE = 0.6
"""Share of facts that keep one wording for the test."""


class Facts:
    """Draws one of about 200 facts in one of four or five wordings."""

    name = "facts"

    def __init__(self) -> None:
        self._facts = _facts()

    def draw(self, random: Random) -> Item:
        """One fact, asked in one wording."""
        attribute, subject, answer = random.choice(self._facts)
        wordings = WORDINGS[attribute]
        wording = random.randrange(len(wordings))
        fact = f"{attribute}|{subject}"
        held_out = is_held_out(fact, TESTED_FACTS_SHARE) and wording == hash_of(f"wording|{fact}") % len(wordings)
        return Item(self.name, f"{fact}|{wording}", ask(_sentence(wordings[wording], subject)), answer, held_out)


def _facts() -> list[tuple[str, str, str]]:
    """All (attribute, subject, answer), each with a single right answer."""
    facts = [("capital", country, capital) for country, (capital, _) in COUNTRIES.items()]
    facts += [("country", capital, country) for country, (capital, _) in COUNTRIES.items()]
    facts += [("continent", country, continent) for country, (_, continent) in COUNTRIES.items()]
    facts += [("colour", thing, colour) for thing, colour in COLOURS.items()]
    facts += [("symbol", element, symbol) for element, symbol in SYMBOLS.items()]
    facts += [("opposite", word, other) for word, other in OPPOSITES.items()]
    facts += [("opposite", other, word) for word, other in OPPOSITES.items()]
    return facts


def _sentence(wording: str, subject: str) -> str:
    sentence = wording.format(subject)
    return sentence[0].upper() + sentence[1:]
