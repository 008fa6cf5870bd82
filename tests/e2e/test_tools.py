"""Tools with a real model that was taught them, through every door: it calls, it is given a reply, it says it."""

import json

import anthropic
import grpc
import httpx2
import openai
import pytest
from harness.asking import TINY
from harness.clients import NO_TLS
from harness.running_mesh import RunningMesh
from harness.tool_loop import run_tasks
from openai import AsyncOpenAI
from serin.generation.v1 import chat_pb2, sampling_pb2
from serin.inference.v1 import inference_pb2, inference_pb2_grpc
from serin_worker.demo.tool_tasks import held_out_tasks

TASKS = held_out_tasks(12)


def closed(**properties: object) -> dict[str, object]:
    """A schema of exactly these members."""
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_tool_loop_comes_out_right(client: AsyncOpenAI, stream: bool):
    """Nine of ten held-out tasks: the right call, then the right sentence."""
    score = await run_tasks(client, "small", TASKS, stream=stream)
    assert score.share >= 0.9, score


async def test_a_tool_loop_over_the_anthropic_api(mesh: RunningMesh):
    """tool_use and tool_result, the call streamed."""
    task = TASKS[0]
    tools = [
        {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
        for one in (tool["function"] for tool in task.tools)
    ]
    question = {"role": "user", "content": task.question}
    ask = {"model": "small", "max_tokens": 96, "tools": tools, "extra_body": {"temperature": 0}}
    plain = httpx2.AsyncClient(verify=NO_TLS, timeout=60)
    async with anthropic.AsyncAnthropic(
        base_url=mesh.rest, api_key=mesh.key, max_retries=0, http_client=plain
    ) as client:
        async with client.messages.stream(**ask, messages=[question]) as stream:
            pieces = [event.partial_json async for event in stream if event.type == "input_json"]
            message = await stream.get_final_message()
        (use,) = message.content
        assert json.loads("".join(pieces)) == task.arguments
        assert (message.stop_reason, use.name, use.input) == ("tool_use", task.name, task.arguments)
        result = {"type": "tool_result", "tool_use_id": use.id, "content": task.reply}
        history = [question, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
        answer = await client.messages.create(**ask, messages=history)
        assert (answer.stop_reason, answer.content[0].text) == ("end_turn", task.sentence)


async def test_a_tool_loop_and_prefill_over_grpc(mesh: RunningMesh, front_door: grpc.aio.Channel):
    """The same call as over REST; then an answer that goes on where the caller began it."""
    task = TASKS[1]
    stub = inference_pb2_grpc.InferenceServiceStub(front_door)
    metadata = [("authorization", f"Bearer {mesh.key}")]
    tools = [
        chat_pb2.ToolDefinition(
            name=one["name"], description=one["description"], parameters_json=json.dumps(one["parameters"])
        )
        for one in (tool["function"] for tool in task.tools)
    ]

    async def generate(*messages: chat_pb2.ChatMessage, **fields: object) -> list[inference_pb2.GenerationDelta]:
        request = inference_pb2.GenerateRequest(
            model="small",
            chat=inference_pb2.Chat(messages=messages, tools=tools, **fields),
            sampling=sampling_pb2.SamplingParameters(temperature=0, max_tokens=96),
        )
        events = [event async for event in stub.Generate(request, metadata=metadata, timeout=60)]
        return [event.delta for event in events if event.HasField("delta")]

    def said(role: str, text: str, **fields: object) -> chat_pb2.ChatMessage:
        return chat_pb2.ChatMessage(role=role, content=[chat_pb2.ContentPart(text=text)], **fields)

    question = said("user", task.question)
    call, *more = [delta.tool_call for delta in await generate(question) if delta.HasField("tool_call")]
    assert {(one.call_index, one.id, one.name) for one in more} == {(0, "", "")}
    arguments = "".join(one.arguments_json for one in (call, *more))
    assert task.is_call(call.name, arguments)
    earlier = chat_pb2.ToolCall(id=call.id, name=call.name, arguments_json=arguments)
    history = [question, chat_pb2.ChatMessage(role="assistant", tool_calls=[earlier])]
    history.append(said("tool", task.reply, tool_call_id=call.id))
    assert "".join(delta.text for delta in await generate(*history)) == task.sentence
    begun = said("assistant", task.sentence[:5])
    rest = await generate(*history, begun, continue_final_message=True)
    assert "".join(delta.text for delta in rest) == task.sentence[5:]


async def test_a_call_can_be_required(client: AsyncOpenAI):
    """Of any tool, and of one by name, where the model would rather not."""
    tools = [
        {"type": "function", "function": {"name": name, "parameters": closed(city={})}}
        for name in ("get_weather", "get_time")
    ]
    ask = {
        "model": "small", "tools": tools, "temperature": 0, "max_tokens": 96,
        "messages": [{"role": "user", "content": "What is the weather in Lima?"}],
    }  # fmt: skip
    for choice, wanted in (
        ("required", "get_weather"),
        ({"type": "function", "function": {"name": "get_time"}}, "get_time"),
    ):
        answer = (await client.chat.completions.create(**ask, tool_choice=choice)).choices[0]
        (call,) = answer.message.tool_calls
        assert (answer.finish_reason, call.function.name) == ("tool_calls", wanted)
        assert json.loads(call.function.arguments) == {"city": "Lima"}
    # What the model would write instead, it cannot: not where a call is required, and not where its tool is strict.
    tools[0]["function"] |= {"parameters": closed(city={"enum": ["Rome"]}, days={"type": "integer"}), "strict": True}
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}, "auto"):
        answer = (await client.chat.completions.create(**ask, tool_choice=choice)).choices[0]
        (call,) = answer.message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert (answer.finish_reason, call.function.name, arguments["city"]) == ("tool_calls", "get_weather", "Rome")
        assert isinstance(arguments["days"], int)
    tools[0]["function"]["parameters"] = closed(city={"type": "array", "uniqueItems": True})
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as refused:
        await client.chat.completions.create(**ask)
    assert refused.value.param == "tools[0].function.parameters"
    unasked = (await client.chat.completions.create(**ask, tool_choice="none")).choices[0]
    assert unasked.message.tool_calls is None


async def test_models_say_what_they_cannot_be_shown_or_told(client: AsyncOpenAI):
    """A template without tools, and one without reasoning: 400, by name."""
    hi = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.BadRequestError, match="cannot show tools") as refused:
        await client.chat.completions.create(model=TINY, messages=hi, tools=list(TASKS[0].tools))
    assert refused.value.param == "tools"
    with pytest.raises(openai.BadRequestError, match="does not reason") as refused:
        await client.chat.completions.create(model="small", messages=hi, reasoning_effort="high")
    assert refused.value.param == "reasoning_effort"
