"""Clients that ask without end, each one question after the other; some leave in the middle of an answer.

Knows nothing about faults of workers.
"""

import asyncio
import random
import secrets
import time
from typing import Any

from faults.history.record import Asked, History
from harness.asking import question
from harness.crowd import SMALL
from harness.running_mesh import RunningMesh
from harness.streamed import Streamed, stream_chat

NEVER_SPECIAL = {str(token_id): -100 for token_id in range(256, 265)}
SEEDED = {"temperature": 0.8, "seed": 5}
NUM_CLIENTS = 3


def questions() -> dict[str, dict[str, Any]]:
    """What is asked, by name: short and long, greedy and drawn, one answer and two."""
    long = {"logit_bias": NEVER_SPECIAL}
    return {
        "natural": question("What is 12 plus 30?", model=SMALL, temperature=0),
        "greedy-60": question("Spell canary.", model=SMALL, temperature=0, max_tokens=60, **long),
        "greedy-300": question("Spell finch.", model=SMALL, temperature=0, max_tokens=300, **long),
        "seeded-200": question("Say something.", model=SMALL, max_tokens=200, **SEEDED, **long),
        "penalties-150": question(
            "Say more.", model=SMALL, max_tokens=150, frequency_penalty=0.4, presence_penalty=0.2, **SEEDED, **long
        ),
        "two-120": question("Say it twice.", model=SMALL, max_tokens=120, n=2, **SEEDED, **long),
        "logprobs-80": question(
            "Say what you think.", model=SMALL, max_tokens=80, logprobs=True, top_logprobs=1, **SEEDED, **long
        ),
    }


class Clients:
    """Ask until they are stopped.

    Args:
        mesh: whom.
        history: where everything is noted.
        rng: decides who asks what and who leaves when.
        leaving: share of requests whose client leaves.
    """

    def __init__(self, mesh: RunningMesh, history: History, rng: random.Random, leaving: float) -> None:
        self._run = secrets.token_hex(3)  # a mesh may see several histories
        self._mesh = mesh
        self._history = history
        self._leaving = leaving
        self._questions = questions()
        self._rngs = [random.Random(rng.random()) for _ in range(NUM_CLIENTS)]
        self._is_over = False
        self._departed = asyncio.Event()

    async def undisturbed(self) -> dict[str, Streamed]:
        """The right answers, by question."""
        asking = (stream_chat(self._mesh, body, f"right-{name}") for name, body in self._questions.items())
        answers = dict(zip(self._questions, await asyncio.gather(*asking), strict=True))
        assert all(answer.is_done for answer in answers.values()), answers
        return answers

    async def run(self) -> None:
        """Ask, until :meth:`stop`; what was begun is ended."""
        async with asyncio.TaskGroup() as group:
            for number, rng in enumerate(self._rngs):
                group.create_task(self._keep_asking(number, rng))

    def stop(self) -> None:
        """Ask nothing new."""
        self._is_over = True

    async def departures(self, count: int) -> None:
        """Wait until so many clients have left."""
        while self._history.num_left < count:
            self._departed.clear()
            await self._departed.wait()

    async def _keep_asking(self, client: int, rng: random.Random) -> None:
        number = 0
        while not self._is_over:
            name = rng.choice(list(self._questions))
            asked = self._history.ask(f"{self._run}-c{client}-{number}", name)
            await self._ask(asked, rng.randrange(2, 40) if rng.random() < self._leaving else None)
            number += 1

    async def _ask(self, asked: Asked, num_events: int | None) -> None:
        def stay(seen: Streamed) -> bool:
            asked.has_left = num_events is not None and len(seen.times) > num_events
            return not asked.has_left

        asked.seen = await stream_chat(self._mesh, self._questions[asked.question], asked.request_id, on_text=stay)
        asked.ended_at = time.monotonic()
        if asked.has_left:
            self._departed.set()
