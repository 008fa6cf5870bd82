"""LiteLLM's client: the OpenAI and the Anthropic dialect, whole and streamed, tools, errors."""

import json
import os
from importlib.metadata import version

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

URL, KEY = os.environ["SERIN_URL"], os.environ["SERIN_KEY"]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
OPENAI = {"model": "openai/small", "api_base": f"{URL}/v1", "api_key": KEY}
ANTHROPIC = {"model": "anthropic/small", "api_base": URL, "api_key": KEY}

for face in (OPENAI, ANTHROPIC):
    ask = {**face, "messages": QUESTION, "temperature": 0, "max_tokens": 64, "num_retries": 0}
    whole = litellm.completion(**ask)
    assert "Paris" in whole.choices[0].message.content, whole
    chunks = list(litellm.completion(**ask, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content, text

with open(os.environ["SERIN_TASKS"], encoding="utf-8") as file:
    task = json.load(file)[0]
messages = [{"role": "user", "content": task["question"]}]
called = litellm.completion(**OPENAI, messages=messages, tools=task["tools"], temperature=0, max_tokens=96)
(call,) = called.choices[0].message.tool_calls
assert json.loads(call.function.arguments) == task["arguments"]

try:
    litellm.completion(**{**OPENAI, "model": "openai/nope"}, messages=QUESTION, num_retries=0)
except litellm.NotFoundError:
    pass
else:
    raise AssertionError("an unknown model was not refused")
print("litellm", version("litellm"))
