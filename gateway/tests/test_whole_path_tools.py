"""Calls and reasoning over real gRPC neighbours: marks that are special tokens, and what a template begins."""

import asyncio
import json

import pytest
from openai import AsyncOpenAI
from whole_path import whole_path

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {}}}}}]
ASK = {"model": "small", "messages": HI, "tools": TOOLS, "max_tokens": 200}
TURNS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content or '' }}{% for call in message.tool_calls or [] %}CALLS{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WRITES = {
    "[TOOL_CALLS]": "[TOOL_CALLS]{{ call.function.name }}[ARGS]{{ call.function.arguments | tojson }}",
    "<|python_tag|>": '<|python_tag|>{"name": "{{ call.function.name }}", "parameters": {}}',
}
MISTRAL = TURNS.replace("CALLS", WRITES["[TOOL_CALLS]"])
LLAMA = TURNS.replace("CALLS", WRITES["<|python_tag|>"])
THINKS = TURNS.replace("CALLS", "<tool_call>{{ call.function | tojson }}</tool_call>").replace(
    "assistant\n{% endif %}",
    "assistant\n<think>{% if enable_thinking is defined and not enable_thinking %}</think>{% endif %}{% endif %}",
)
HERMES_CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'


def sdk(path) -> AsyncOpenAI:
    """The SDK in front of it."""
    return AsyncOpenAI(base_url=f"{path.url}/v1", api_key=path.key, max_retries=0)


@pytest.mark.parametrize(
    ("template", "marks", "text"),
    [
        (MISTRAL, ["[TOOL_CALLS]", "[ARGS]"], 'So. [TOOL_CALLS]f[ARGS]{"x": 1}[TOOL_CALLS]f[ARGS]{"x": 2}'),
        (
            LLAMA,
            ["<|python_tag|>"],
            'So. <|python_tag|>{"name": "f", "parameters": {"x": 1}}; {"name": "f", "parameters": {"x": 2}}',
        ),
    ],
    ids=["mistral", "llama"],
)
async def test_marks_that_are_special_tokens_are_seen(tmp_path, template, marks, text):
    """Detokenized so that calls can be read, and never shown: not the marks, not the end of the turn."""
    async with whole_path(tmp_path, text, template=template, marks=marks) as path, sdk(path) as openai:
        for stream in (False, True):
            if stream:
                async with openai.chat.completions.stream(**ASK) as opened:
                    choice = (await opened.get_final_completion()).choices[0]
            else:
                choice = (await openai.chat.completions.create(**ASK)).choices[0]
            assert (choice.finish_reason, choice.message.content) == ("tool_calls", "So.")
            arguments = [call.function.arguments for call in choice.message.tool_calls]
            assert arguments == ['{"x": 1}', '{"x": 2}']
        plain = (await openai.chat.completions.create(model="small", messages=HI)).choices[0].message
        assert not any(mark in plain.content for mark in marks)


async def test_a_required_call_is_begun_by_the_template_that_is_there(tmp_path):
    """The prompt ends with the mark as its token; the answer's beginning comes back to the reader."""
    marks = ["[TOOL_CALLS]", "[ARGS]"]
    async with whole_path(tmp_path, '{"x": 3}', template=MISTRAL, marks=marks) as path, sdk(path) as openai:
        named = {"type": "function", "function": {"name": "f"}}
        choice = (await openai.chat.completions.create(**ASK, tool_choice=named)).choices[0]
        assert json.loads(choice.message.tool_calls[0].function.arguments) == {"x": 3}
        prompt = path.workers[0].requests[0].prompt[0].tokens.token_ids
        assert list(prompt[-3:]) == [path.vocabulary[one] for one in ("[TOOL_CALLS]", "f", "[ARGS]")]


async def test_reasoning_that_a_template_begins(tmp_path):
    """Told apart from the call behind it and counted; switched off, it is not begun."""
    text = f"A bird?\n</think>\n\n{HERMES_CALL}"
    async with whole_path(tmp_path, text, template=THINKS) as path, sdk(path) as openai:
        answer = await openai.chat.completions.create(**ASK)
        message = answer.choices[0].message
        assert (message.content, message.reasoning_content) == (None, "A bird?")
        assert message.tool_calls[0].function.arguments == '{"x": 1}'
        assert answer.usage.completion_tokens_details.reasoning_tokens == len("A bird?\n</think>")
        plain = await openai.chat.completions.create(**ASK, reasoning_effort="none")
        assert plain.choices[0].message.content.startswith("A bird?\n</think>")
        assert plain.usage.completion_tokens_details.reasoning_tokens == 0


async def test_an_answer_goes_on_on_another_worker(tmp_path):
    """One dies inside a call, whose beginning was read by then: what comes is what would have, identifiers once.

    The other one follows the same grammar.
    """
    text = f"A bird?</think>So. {HERMES_CALL}\n{HERMES_CALL}"
    async with whole_path(tmp_path, text, template=THINKS, num_workers=2) as path, sdk(path) as openai:
        at, grown = text.index('": 1'), asyncio.Event()
        for worker in path.workers:
            worker.pause_at = at

        async def interrupt() -> None:
            waits = [asyncio.create_task(worker.reached.wait()) for worker in path.workers]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            await grown.wait()
            for worker, wait in zip(path.workers, waits, strict=True):
                worker.pause_at, worker.die_after = None, at if wait.done() else None
                wait.cancel()
                worker.gate.set()

        interrupting = asyncio.create_task(interrupt())
        strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
        async with openai.chat.completions.stream(**ASK | {"tools": strict}) as stream:
            heads, told = [], ["", ""]
            async for event in stream:
                for call in event.chunk.choices[0].delta.tool_calls or [] if event.type == "chunk" else []:
                    heads += [call] if call.id else []
                    told[call.index] += call.function.arguments
                    if told[0] == '{"x':
                        grown.set()
            message = (await stream.get_final_completion()).choices[0].message
        await interrupting
        assert [head.index for head in heads] == [0, 1]
        assert told == ['{"x": 1}', '{"x": 1}']
        assert [call.id for call in message.tool_calls] == [head.id for head in heads]
        assert (message.content, message.reasoning_content) == ("So.", "A bird?")
        first, second = (request for worker in path.workers for request in worker.requests)
        assert first.grammar.text == second.grammar.text != ""
