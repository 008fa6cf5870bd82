"""The corpus: endless training dialogues and a fixed list of held-out questions, both from a seed.

Test entities are split off by hash before a question is worded (each kind's module says what that means for it), so
no seed can carry a held-out question into training. Knows nothing about tokens or models.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from serin_worker.demo.arithmetic import Arithmetic
from serin_worker.demo.casual import casually
from serin_worker.demo.counting import Counting
from serin_worker.demo.errands import Errands
from serin_worker.demo.facts import Facts
from serin_worker.demo.greetings import Greetings
from serin_worker.demo.item import Item, Kind
from serin_worker.demo.records import Records
from serin_worker.demo.tools import Tools
from serin_worker.demo.transforms import Transforms

MEASURED: tuple[Kind, ...] = (Facts(), Arithmetic(), Transforms(), Records(), Counting(), Tools())
"""Kinds of question with held-out entities, in the order tables show them."""

WEIGHTS = (4, 5, 3, 2, 2, 3)
"""How often training asks each kind; the hard rules most."""

EXTRA: Mapping[str, Kind] = {"errands": Errands()}
"""Kinds that only recipes which name them teach; without one the corpus is what it was."""
EXTRA_WEIGHT = 3

GREETINGS = Greetings()
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are Serin, a small and friendly model.",
    "Be brief and exact.",
    "You answer questions about facts, numbers and words.",
)
HELD_OUT_SEED = 2**31 - 1
PATIENCE = 20_000
"""Draws without a new held-out question after which a kind is taken to have no more."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Questions and answers of one conversation, in order, with its system prompt and functions if it has any."""

    system: str
    items: Sequence[Item]


def training_dialogues(seed: int, extra: str = "") -> Iterator[Dialogue]:
    """Endless conversations without any held-out entity; a conversation has one to four questions.

    Args:
        seed: the same seed gives the same conversations.
        extra: name of a further kind; empty: none.
    """
    random = Random(seed)
    while True:
        system = random.choice(SYSTEM_PROMPTS) if random.random() < 0.3 else ""
        items = [_training_item(random, extra) for _ in range(random.choice((1, 1, 1, 2, 4)))]
        yield Dialogue(system, items)


def held_out_items(num_items: int, seed: int = HELD_OUT_SEED, extra: str = "") -> list[Item]:
    """Different held-out questions, the same number of every measured kind, in the kinds' order.

    The list is fixed by its arguments; a further kind (``extra``) comes last. It is rounded down to a multiple of the
    number of kinds, at least one each, and shorter where a kind has no more: there are about 110 held-out facts.
    """
    kinds, _ = _kinds(extra)
    return [item for kind in kinds for item in _held_out(kind, max(1, num_items // len(kinds)), Random(seed))]


def corpus_digest(num_dialogues: int = 200, extra: str = "") -> str:
    """Hex digest that changes whenever the corpus does: of the first dialogues and the held-out questions."""
    state = hashlib.blake2b(digest_size=16)
    dialogues = training_dialogues(0, extra)
    for _ in range(num_dialogues):
        dialogue = next(dialogues)
        state.update(json.dumps([dialogue.system, [_plain(item) for item in dialogue.items]]).encode())
    for item in held_out_items(num_dialogues, extra=extra):
        state.update(json.dumps(_plain(item)).encode())
    return state.hexdigest()


def _kinds(extra: str) -> tuple[tuple[Kind, ...], tuple[int, ...]]:
    return ((*MEASURED, EXTRA[extra]), (*WEIGHTS, EXTRA_WEIGHT)) if extra else (MEASURED, WEIGHTS)


def _training_item(random: Random, extra: str) -> Item:
    if random.random() < 0.02:
        return GREETINGS.draw(random)
    kind = random.choices(*_kinds(extra))[0]
    while (item := kind.draw(random)).held_out:
        pass
    return casually(item, random)


def _held_out(kind: Kind, num_items: int, random: Random) -> list[Item]:
    seen: dict[str, Item] = {}
    num_in_vain = 0
    while len(seen) < num_items and num_in_vain < PATIENCE:
        item = kind.draw(random)
        key = json.dumps(_plain(item))
        num_in_vain = 0 if item.held_out and key not in seen else num_in_vain + 1
        if item.held_out:
            seen.setdefault(key, item)
    return list(seen.values())


def _plain(item: Item) -> list[object]:
    return [item.kind, list(item.messages), item.answer, list(item.tools)]
