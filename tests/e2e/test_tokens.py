"""`/tokenize` and `/detokenize` against real models: there and back, and what a chat is asked with."""

from harness.asking import TINY, greedy
from harness.clients import plain_http
from harness.running_mesh import RunningMesh
from harness.tiny_model import SPECIAL_TOKENS
from openai import AsyncOpenAI

QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
HEADER = "<|im_start|>assistant\n"


async def test_tokens_are_those_that_a_model_is_asked_with(mesh: RunningMesh, client: AsyncOpenAI):
    """Texts and conversations with their special tokens; strings; the count that is charged; ids that are none."""
    headers = {"authorization": f"Bearer {mesh.key}"}
    async with plain_http(base_url=mesh.rest, headers=headers, timeout=30) as http:

        async def told(path: str, *, model: str = TINY, status: int = 200, **body):
            answer = await http.post(path, json={"model": model, **body})
            assert answer.status_code == status, answer.text
            return answer.json()

        text = await told("/tokenize", prompt="Grüße 🐦", return_token_strs=True)
        context = (await http.get(f"/v1/models/{TINY}")).json()["context_length"]
        assert (text["max_model_len"], text["count"]) == (context, len("Grüße 🐦".encode()))
        assert "".join(text["token_strs"]) == "Gr\ufffd\ufffd\ufffd\ufffde \ufffd\ufffd\ufffd\ufffd"
        assert await told("/detokenize", tokens=text["tokens"]) == {"prompt": "Grüße 🐦"}

        asked = await told("/tokenize", messages=MESSAGES)
        written = (await told("/detokenize", tokens=asked["tokens"]))["prompt"]
        assert written == f"<|im_start|>user\n{QUESTION}<|im_end|>\n{HEADER}"
        without = await told("/tokenize", messages=MESSAGES, add_generation_prompt=False)
        assert (await told("/detokenize", tokens=without["tokens"]))["prompt"] == written.removesuffix(HEADER)
        begun = [*MESSAGES, {"role": "assistant", "content": "Par"}]
        goes_on = await told("/tokenize", messages=begun, continue_final_message=True, add_generation_prompt=False)
        assert (await told("/detokenize", tokens=goes_on["tokens"]))["prompt"] == f"{written}Par"
        assert (await told("/tokenize", prompt=written))["tokens"] == asked["tokens"]

        size = len(SPECIAL_TOKENS) + 256
        refused = await told("/detokenize", status=400, tokens=[0, size - 1, size])
        assert (refused["error"]["param"], refused["error"]["reason"]) == ("tokens[2]", "PARAMETER_INVALID")
        long = await told("/tokenize", status=400, prompt="x" * context)
        assert (long["error"]["param"], long["error"]["reason"]) == ("prompt", "PROMPT_TOO_LONG")

        demo = await told("/tokenize", model="small", messages=MESSAGES)
    charged = (await client.chat.completions.create(**greedy(QUESTION, model="small", max_tokens=1))).usage
    assert demo["count"] == charged.prompt_tokens
