"""Somebody who asks the same question all the time, and must get the same answer whatever others do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from harness.asking import greedy
from harness.clients import plain_http
from security.attack import CHAT

PAUSE_S = 0.02
TIMEOUT_S = 30.0
QUESTION = greedy("What do the others do?", max_tokens=8)


class Bystander:
    """Asks as long as it is watched."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._answered = asyncio.Condition()
        self._right: str | None = None
        self.num_answers = 0
        self.wrong: list[str] = []
        """Answers that were not the first one, and failures."""

    @classmethod
    @asynccontextmanager
    async def asking(cls, rest: str, key: str) -> "AsyncIterator[Bystander]":
        """Let one ask."""
        async with plain_http(base_url=rest, timeout=TIMEOUT_S, headers={"authorization": f"Bearer {key}"}) as http:
            bystander = cls(http)
            asking = asyncio.create_task(bystander._ask_on())
            try:
                await bystander.answers_again()
                yield bystander
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    async def answers_again(self) -> None:
        """Wait for an answer to a question that is asked from now on."""
        async with asyncio.timeout(TIMEOUT_S), self._answered:
            wanted = self.num_answers + 2  # the next one may have been asked before
            await self._answered.wait_for(lambda: self.num_answers >= wanted)

    async def _ask_on(self) -> None:
        while True:
            try:
                response = await self._http.post(CHAT, json=QUESTION)
            except httpx.HTTPError as error:
                await self._heard(repr(error))
            else:
                if response.status_code == 503 and "retry-after" in response.headers:
                    await asyncio.sleep(1)  # others use this mesh too, and it may have enough to do
                    continue
                told = response.json()
                await self._heard(told["choices"][0]["message"]["content"] if response.is_success else response.text)
            await asyncio.sleep(PAUSE_S)

    async def _heard(self, said: str) -> None:
        async with self._answered:
            self._right = said if self._right is None else self._right
            if said != self._right:
                self.wrong.append(said)
            self.num_answers += 1
            self._answered.notify_all()
