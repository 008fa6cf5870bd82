"""Words, names and cities: a list of real ones, and made-up ones so that rules must be learned rather than lists.

Knows nothing about questions.
"""

import string
from random import Random

CONSONANTS = "bcdfghjklmnprstvwz"
VOWELS = "aeiou"
LETTERS = string.ascii_lowercase

_REAL_WORDS = """
    apple bird boat book bread bridge brown candle castle chair cloud coat corn crane dance desk door dream drum
    earth engine fence field finch fire fish flower forest friend garden glass gold grain grape green hammer hand
    heart hill honey horse house island jacket juice kettle king kitten ladder lamp leaf lemon letter light lion
    maple market milk mirror model moon morning mountain mouse music needle night north ocean onion orange paint
    paper pencil piano planet plate pocket pond queen rabbit rain river road robin rocket roof rope salt sand
    school sheep ship silver smoke snow song spoon spring star stone storm street summer sun table tiger tower
    train tree valley violin voice wagon water wheel wind window winter wolf wood world yellow zebra
"""

_REAL_NAMES = """
    Ada Alan Alice Amir Anna Ben Bruno Carla Chen Clara Daniel David Diana Elena Emma Eric Fatima Felix Grace Hana
    Hugo Ida Ivan Jack Jane Jonas Julia Karl Kofi Lara Leo Lina Luis Maria Mark Mia Milan Nadia Nina Noah Nora Olga
    Omar Oscar Paul Petra Priya Rosa Ruth Sam Sara Sofia Tara Theo Tom Uma Vera Viktor Yuki Zoe
"""

_REAL_CITIES = """
    Accra Amman Athens Bergen Berlin Bilbao Bogota Boston Cairo Chicago Cork Dakar Delhi Dublin Geneva Hamburg Hanoi
    Havana Helsinki Kyiv Kyoto Lagos Leeds Lima Lisbon London Lyon Madrid Malmo Milan Munich Nairobi Naples Oslo Paris
    Porto Prague Quito Riga Rome Seoul Sofia Sydney Tallinn Tokyo Toronto Tunis Turin Utrecht Vienna Warsaw Zurich
"""

WORDS = tuple(_REAL_WORDS.split())
NAMES = tuple(_REAL_NAMES.split())
CITIES = tuple(_REAL_CITIES.split())


def word(random: Random) -> str:
    """A lower-case word of 3 to 8 letters: real in one of three draws, made up otherwise."""
    return random.choice(WORDS) if random.random() < 0.33 else _made_up(random)


def name(random: Random) -> str:
    """A person's capitalised name: real in one of three draws, made up otherwise."""
    return random.choice(NAMES) if random.random() < 0.33 else _made_up(random).capitalize()


def city(random: Random) -> str:
    """A capitalised city's name: real in one of three draws, made up otherwise."""
    return random.choice(CITIES) if random.random() < 0.33 else _made_up(random).capitalize()


def _made_up(random: Random) -> str:
    """Half of them can be spoken; the others are any letters, so that copying cannot lean on habits of spelling."""
    if random.random() < 0.5:
        return "".join(random.choices(LETTERS, k=random.randint(3, 7)))
    num_syllables = random.choice((1, 2, 2, 3))
    letters = [random.choice(CONSONANTS) + random.choice(VOWELS) for _ in range(num_syllables)]
    if len(letters) == 1 or random.random() < 0.5:
        letters.append(random.choice(CONSONANTS))
    return "".join(letters)
