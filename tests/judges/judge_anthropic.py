"""Anthropic's own SDK: messages whole and streamed, system, stop sequences, tools, counting, errors."""

import json
import os

import anthropic

client = anthropic.Anthropic(base_url=os.environ["SERIN_URL"], api_key=os.environ["SERIN_KEY"], max_retries=0)
ASK = {"model": "small", "max_tokens": 96, "extra_body": {"temperature": 0}}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

whole = client.messages.create(messages=QUESTION, **ASK)
assert "Paris" in whole.content[0].text, whole
assert whole.stop_reason == "end_turn"

with client.messages.stream(messages=QUESTION, **ASK) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text == whole.content[0].text
assert final.usage.output_tokens == whole.usage.output_tokens

cached = [{"type": "text", "text": "What is the capital of France?", "cache_control": {"type": "ephemeral"}}]
assert client.messages.create(messages=[{"role": "user", "content": cached}], **ASK).content == whole.content

stopped = client.messages.create(messages=QUESTION, stop_sequences=["is"], **ASK)
assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "is")

num_prompt_tokens = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
assert client.messages.count_tokens(model="small", messages=QUESTION).input_tokens == num_prompt_tokens

with open(os.environ["SERIN_TASKS"], encoding="utf-8") as file:
    task = json.load(file)[0]
tools = [
    {"name": f["name"], "description": f["description"], "input_schema": f["parameters"]}
    for f in (tool["function"] for tool in task["tools"])
]
messages = [{"role": "user", "content": task["question"]}]
called = client.messages.create(messages=messages, tools=tools, **ASK)
(use,) = [block for block in called.content if block.type == "tool_use"]
assert (use.name, use.input) == (task["name"], task["arguments"]), called
messages += [
    {"role": "assistant", "content": called.content},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": task["reply"]}]},
]
assert client.messages.create(messages=messages, tools=tools, **ASK).content[0].text == task["sentence"]

try:
    client.messages.create(messages=QUESTION, **{**ASK, "model": "nope"})
except anthropic.NotFoundError as refusal:
    assert refusal.body["type"] == "error", refusal.body
else:
    raise AssertionError("an unknown model was not refused")
print("anthropic", anthropic.__version__)
