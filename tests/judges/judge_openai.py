"""OpenAI's own SDK: chat, streams, tools, structured output, completions, embeddings, responses, models, errors."""

import json
import os

import openai

client = openai.OpenAI(base_url=f"{os.environ['SERIN_URL']}/v1", api_key=os.environ["SERIN_KEY"], max_retries=0)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"model": "small", "temperature": 0, "max_tokens": 64}

whole = client.chat.completions.create(messages=QUESTION, **GREEDY)
assert "Paris" in whole.choices[0].message.content, whole
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

with client.chat.completions.stream(messages=QUESTION, **GREEDY) as stream:
    streamed = stream.get_final_completion()
assert streamed.choices[0].message.content == whole.choices[0].message.content

several = client.chat.completions.create(messages=QUESTION, n=2, logprobs=True, top_logprobs=2, **GREEDY)
assert [choice.index for choice in several.choices] == [0, 1]
assert all(len(token.top_logprobs) == 2 for token in several.choices[0].logprobs.content)

schema = {
    "type": "object",
    "properties": {"capital": {"type": "string", "maxLength": 20}},
    "required": ["capital"],
    "additionalProperties": False,
}
response_format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
formed = client.chat.completions.create(messages=QUESTION, response_format=response_format, **GREEDY)
assert set(json.loads(formed.choices[0].message.content)) == {"capital"}

text = client.completions.create(prompt="The capital of", echo=True, logprobs=1, **GREEDY)
assert text.choices[0].text.startswith("The capital of")

assert "small" in {model.id for model in client.models.list()}

response = client.responses.create(model="small", input="What is the capital of France?", temperature=0)
assert "Paris" in response.output_text
assert client.responses.retrieve(response.id).output_text == response.output_text
client.responses.delete(response.id)

for wrong, error in (({"model": "nope"}, openai.NotFoundError), ({"temperature": 7}, openai.BadRequestError)):
    try:
        client.chat.completions.create(messages=QUESTION, **{**GREEDY, **wrong})
    except error as refusal:
        assert refusal.body["message"], refusal
    else:
        raise AssertionError(f"{wrong} was not refused")
print("openai", openai.__version__)
