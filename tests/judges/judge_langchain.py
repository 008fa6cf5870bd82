"""langchain-openai: invoke, stream, structured output, and the two-call tool loop on held-out tasks."""

import json
import os
import sys
from importlib.metadata import version

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

NEEDED = 0.6
model = ChatOpenAI(
    model="small",
    base_url=f"{os.environ['SERIN_URL']}/v1",
    api_key=os.environ["SERIN_KEY"],
    temperature=0,
    max_tokens=96,
    max_retries=0,
)

answer = model.invoke("What is the capital of France?")
assert "Paris" in answer.content, answer
assert "".join(chunk.content for chunk in model.stream("What is the capital of France?")) == answer.content
assert answer.usage_metadata["total_tokens"] > 0

schema = {
    "title": "Capital",
    "description": "A capital.",
    "type": "object",
    "properties": {"capital": {"type": "string", "maxLength": 20}},
    "required": ["capital"],
    "additionalProperties": False,
}
formed = model.with_structured_output(schema, method="json_schema").invoke("What is the capital of France?")
assert set(formed) == {"capital"}, formed

with open(os.environ["SERIN_TASKS"], encoding="utf-8") as file:
    tasks = json.load(file)
num_right = 0
for task in tasks:
    asking = model.bind_tools(task["tools"])
    messages = [HumanMessage(task["question"])]
    called = asking.invoke(messages)
    if [(call["name"], call["args"]) for call in called.tool_calls] != [(task["name"], task["arguments"])]:
        continue
    messages += [called, ToolMessage(task["reply"], tool_call_id=called.tool_calls[0]["id"])]
    num_right += asking.invoke(messages).content == task["sentence"]
print(f"langchain-openai {version('langchain-openai')}: {num_right} of {len(tasks)} tool loops right")
sys.exit(0 if num_right >= NEEDED * len(tasks) else 1)
