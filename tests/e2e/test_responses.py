"""The Responses API through the official SDK, against a mesh of real processes and its real state Redis."""

import json
from typing import Any, Literal

import openai
import pytest
from harness.asking import TINY
from harness.keys import mint
from harness.running_mesh import RunningMesh
from openai import AsyncOpenAI
from openai.types.responses import Response
from pydantic import BaseModel, Field
from serin_worker.demo.tool_tasks import ToolTask, held_out_tasks

TASKS = held_out_tasks(4)
GREEDY: dict[str, Any] = {"model": "small", "temperature": 0, "max_output_tokens": 96}


def tools_of(task: ToolTask) -> list[dict[str, Any]]:
    """A task's functions, in this API's shape."""
    return [{"type": "function", "strict": False, **tool["function"]} for tool in task.tools]


async def made(client: AsyncOpenAI, stream: bool, **ask: Any) -> Response:
    """A response, whole or as the SDK puts its stream together."""
    if not stream:
        return await client.responses.create(**ask)
    async with client.responses.stream(**ask) as events:
        return await events.get_final_response()


async def test_whole_and_streamed_say_what_chat_says(client: AsyncOpenAI):
    """The same model is shown the same; the stream's events are the API's."""
    ask = GREEDY | {"input": "What is 17 + 25?"}
    chat = await client.chat.completions.create(
        model="small", temperature=0, max_tokens=96, messages=[{"role": "user", "content": "What is 17 + 25?"}]
    )
    whole = await client.responses.create(**ask)
    assert whole.output_text == chat.choices[0].message.content
    assert (whole.status, whole.usage.output_tokens) == ("completed", chat.usage.completion_tokens)
    events = [event async for event in await client.responses.create(**ask, stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    num_deltas = kinds.count("output_text.delta")
    assert num_deltas > 0
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * num_deltas,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert events[-1].response.output_text == whole.output_text
    cut = await client.responses.create(**ask | {"max_output_tokens": 1})
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_tool_loop_over_kept_responses(client: AsyncOpenAI, stream: bool):
    """The call, what it gave by `previous_response_id` alone, and the sentence: most held-out tasks come out right."""
    num_right = 0
    for task in TASKS:
        ask = GREEDY | {"tools": tools_of(task)}
        first = await made(client, stream, **ask, input=task.question)
        calls = [item for item in first.output if item.type == "function_call"]
        if len(calls) != 1 or not task.is_call(calls[0].name, calls[0].arguments):
            continue
        gave = {"type": "function_call_output", "call_id": calls[0].call_id, "output": task.reply}
        answer = await made(client, stream, **ask, input=[gave], previous_response_id=first.id)
        sent = await made(
            client, stream, **ask, store=False, input=[{"role": "user", "content": task.question}, *first.output, gave]
        )
        assert sent.output_text == answer.output_text
        num_right += answer.output_text == task.sentence
    assert num_right >= len(TASKS) - 1


async def test_a_conversation_goes_on_behind_a_tool_loop(client: AsyncOpenAI):
    """Every turn is there again; a call that nothing answered is refused, as is what nobody keeps."""
    task = TASKS[0]
    ask = GREEDY | {"tools": tools_of(task)}
    called = await client.responses.create(**ask, input=task.question)
    (call,) = called.output
    gave = {"type": "function_call_output", "call_id": call.call_id, "output": task.reply}
    answer = await client.responses.create(**ask, input=[gave], previous_response_id=called.id)
    later = await client.responses.create(**ask, input="What is 17 + 25?", previous_response_id=answer.id)
    sizes = [one.usage.input_tokens for one in (called, answer, later)]
    assert sizes == sorted(set(sizes))
    items = [item async for item in client.responses.input_items.list(answer.id)]
    assert [(item.type, item.output) for item in items] == [("function_call_output", task.reply)]
    with pytest.raises(openai.BadRequestError, match="no function_call_output answers") as refused:
        await client.responses.create(**ask, input="And?", previous_response_id=called.id)
    assert refused.value.param == "input"
    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.create(**ask, input="And?", previous_response_id="resp_none")
    assert missing.value.code == "previous_response_not_found"


async def test_responses_are_read_and_deleted_by_their_own_project(mesh: RunningMesh, client: AsyncOpenAI):
    """Nobody else finds them; what continues a deleted one goes on."""
    first = await client.responses.create(**GREEDY, input="What is 2 + 2?", metadata={"a": "b"})
    second = await client.responses.create(**GREEDY, input="What is 3 + 3?", previous_response_id=first.id)
    again = await client.responses.retrieve(first.id)
    assert again == first
    key, _ = await mint(mesh, project="another-project")
    other = client.with_options(api_key=key)
    for found in (
        other.responses.retrieve(first.id),
        other.responses.delete(first.id),
        other.responses.create(**GREEDY, input="Say it again", previous_response_id=first.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await found
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.id)
    third = await client.responses.create(**GREEDY, input="What is 4 + 4?", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.input_tokens > first.usage.input_tokens
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.cancel(third.id)
    assert refused.value.param == "background"


class Person(BaseModel):
    """Who it is."""

    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=120)
    kind: Literal["person", "place"]


@pytest.mark.parametrize("model", ["small", TINY])
async def test_structured_output(client: AsyncOpenAI, model: str):
    """Whatever the model says at this temperature: it is what was asked for."""
    ask: dict[str, Any] = {"model": model, "input": "Write JSON: name Ada, age 36.", "temperature": 1.6}
    for seed in range(3):
        response = await client.responses.parse(
            **ask, max_output_tokens=400, text_format=Person, extra_body={"seed": seed}
        )
        assert isinstance(response.output_parsed, Person)
        async with client.responses.stream(
            **ask, max_output_tokens=400, text_format=Person, extra_body={"seed": seed}
        ) as stream:
            assert (await stream.get_final_response()).output_parsed == response.output_parsed
    free = {"format": {"type": "json_object"}}
    response = await client.responses.create(**ask | {"temperature": 0.3}, max_output_tokens=400, text=free)
    assert response.status == "incomplete" or isinstance(json.loads(response.output_text), dict)
