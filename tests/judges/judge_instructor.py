"""instructor: pydantic models filled by constrained JSON and by a tool call."""

import os
from importlib.metadata import version
from typing import Annotated

import instructor
from openai import OpenAI
from pydantic import BaseModel, Field


class Capital(BaseModel):
    """The capital of a country."""

    capital: Annotated[str, Field(max_length=20)]
    population: Annotated[int, Field(ge=0, le=99)]


sdk = OpenAI(base_url=f"{os.environ['SERIN_URL']}/v1", api_key=os.environ["SERIN_KEY"], max_retries=0)
ask = {
    "model": "small", "temperature": 0, "max_tokens": 128, "max_retries": 0, "response_model": Capital,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}  # fmt: skip
formed = instructor.from_openai(sdk, mode=instructor.Mode.JSON_SCHEMA).chat.completions.create(**ask)
assert isinstance(formed, Capital), formed
print("instructor", version("instructor"), formed.model_dump())
