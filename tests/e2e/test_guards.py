"""Guards in a real mesh: a project's policy holds for its keys alone, through real tokenizers and workers."""

from collections.abc import AsyncIterator

import openai
import pytest
from harness.clients import plain_http, plain_openai
from harness.explaining import explained
from harness.keys import mint
from harness.running_mesh import RunningMesh
from openai import AsyncOpenAI
from serin_gateway.keys import Role

SUM = "What is 17 + 25?"


def asked(text: str, **arguments):
    """A question to the demo model, whose answer is the same each time."""
    return {"model": "small", "messages": [{"role": "user", "content": text}], "temperature": 0, **arguments}


@pytest.fixture
async def guarded(mesh: RunningMesh) -> AsyncIterator[AsyncOpenAI]:
    """The SDK with a key of the project that has a policy."""
    key, _ = await mint(mesh, project="guarded")
    async with plain_openai(f"{mesh.rest}/v1", key) as client:
        yield client


async def test_answers_are_masked_for_the_project_that_wants_it(guarded: AsyncOpenAI, client: AsyncOpenAI):
    """Whole and streamed; who has no policy sees what the model said; both pay the same."""
    plain = await client.chat.completions.create(**asked(SUM))
    masked = await guarded.chat.completions.create(**asked(SUM))
    assert "42" in plain.choices[0].message.content
    assert masked.choices[0].message.content == plain.choices[0].message.content.replace("42", "[BLOCKED]")
    tokens = [(one.usage.prompt_tokens, one.usage.completion_tokens) for one in (masked, plain)]
    assert tokens[0] == tokens[1], "whatever of it was cached, as others have asked one of the projects before"
    stream = await guarded.chat.completions.create(**asked(SUM, stream=True))
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == masked.choices[0].message.content


async def test_the_model_is_shown_what_is_masked(guarded: AsyncOpenAI, client: AsyncOpenAI):
    """As many prompt tokens as the masked text has, which is not what was sent."""
    sent = "Mail jane.doe@example.com about SSN 123-45-6788"
    shown = "Mail [EMAIL_ADDRESS] about SSN [US_SSN]"
    one = await guarded.chat.completions.create(**asked(sent, max_tokens=2))
    same = await client.chat.completions.create(**asked(shown, max_tokens=2))
    other = await client.chat.completions.create(**asked(sent, max_tokens=2))
    assert one.usage.prompt_tokens == same.usage.prompt_tokens != other.usage.prompt_tokens


async def test_what_is_refused_is_explained_without_the_text(guarded: AsyncOpenAI, mesh: RunningMesh):
    """400, the metric, and `serin explain`."""
    with pytest.raises(openai.BadRequestError) as refused:
        await guarded.chat.completions.create(**asked("Describe the Forbidden  Fruit."))
    assert refused.value.code == "content_policy_violation"
    said = await explained(mesh, str(refused.value.request_id))
    assert "guard     blocked, input: refuse (BLOCKED 1)" in said
    assert "fruit" not in said.lower()
    viewer, _ = await mint(mesh, role=Role.VIEWER)
    async with plain_http(base_url=mesh.rest, timeout=20) as http:
        metrics = (await http.get("/metrics", headers={"authorization": f"Bearer {viewer}"})).text
    assert 'serin_guard_decisions_total{action="refuse",detector="blocked",direction="input"}' in metrics
