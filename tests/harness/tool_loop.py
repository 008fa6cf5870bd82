"""A tool loop through the official SDK: one request for the call, one for the answer. Counts what came out right.

Knows the demo model's tasks and the SDK, nothing about meshes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessage
from serin_worker.demo.tool_tasks import ToolTask

AT_ONCE = 8
MAX_TOKENS = 96


@dataclass(frozen=True, slots=True)
class ToolScore:
    """How many tasks were asked, how many got the right call, and how many also the right answer."""

    num_tasks: int
    num_calls_right: int
    num_right: int

    @property
    def share(self) -> float:
        """Share of tasks that came out right, 0 to 1."""
        return self.num_right / self.num_tasks


async def run_tasks(client: AsyncOpenAI, model: str, tasks: Sequence[ToolTask], *, stream: bool = False) -> ToolScore:
    """Run all tasks, some at once; every request is greedy."""
    places = asyncio.Semaphore(AT_ONCE)

    async def run(task: ToolTask) -> tuple[bool, bool]:
        async with places:
            return await _run(client, model, task, stream)

    found = await asyncio.gather(*map(run, tasks))
    return ToolScore(len(found), sum(called for called, _ in found), sum(right for _, right in found))


async def _run(client: AsyncOpenAI, model: str, task: ToolTask, stream: bool) -> tuple[bool, bool]:
    messages: list[Any] = [{"role": "user", "content": task.question}]
    said = await _ask(client, model, messages, task, stream)
    calls = said.tool_calls or []
    if len(calls) != 1 or not task.is_call(calls[0].function.name, calls[0].function.arguments):
        return False, False
    messages += [
        said.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[0].id, "content": task.reply},
    ]
    answer = await _ask(client, model, messages, task, stream)
    return True, answer.content == task.sentence and not answer.tool_calls


async def _ask(
    client: AsyncOpenAI, model: str, messages: list[Any], task: ToolTask, stream: bool
) -> ChatCompletionMessage:
    ask: dict[str, Any] = {
        "model": model, "messages": messages, "tools": list(task.tools), "temperature": 0, "max_tokens": MAX_TOKENS,
    }  # fmt: skip
    if not stream:
        return (await client.chat.completions.create(**ask)).choices[0].message
    async with client.chat.completions.stream(**ask) as opened:
        return (await opened.get_final_completion()).choices[0].message
