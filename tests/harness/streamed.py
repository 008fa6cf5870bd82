"""A chat completion as a stream, read event by event without an SDK: what a client saw of it, and when."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.clients import plain_http
from harness.running_mesh import RunningMesh
from harness.server_sent_events import read_events

TIMEOUT_S = 120.0


@dataclass
class Choice:
    """One answer as it came."""

    text: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None


@dataclass
class Streamed:
    """One request as its client saw it.

    Attributes:
        choices: by index.
        error: the error's reason, from the response or from inside the stream; None: none came.
        is_done: whether ``[DONE]`` came.
        times: of each event, seconds of ``time.monotonic``; the first is when it was sent.
    """

    choices: dict[int, Choice] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    error: str | None = None
    is_done: bool = False
    times: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Of the only answer."""
        return self.choices[0].text if self.choices else ""

    @property
    def answer(self) -> list[tuple[str, list[dict[str, Any]], str | None]]:
        """Everything that must be the same each time."""
        return [(one.text, one.logprobs, one.finish_reason) for _, one in sorted(self.choices.items())]

    @property
    def longest_pause_s(self) -> float:
        """Between two events."""
        return max((b - a for a, b in zip(self.times, self.times[1:], strict=False)), default=0.0)

    def take(self, event: dict[str, Any]) -> None:
        """Take in one event."""
        if "error" in event:
            self.error = event["error"]["reason"]
            return
        self.usage = event.get("usage") or self.usage
        for one in event["choices"]:
            choice = self.choices.setdefault(one["index"], Choice())
            choice.text += one["delta"].get("content") or ""
            choice.logprobs += (one.get("logprobs") or {}).get("content") or []
            choice.finish_reason = one["finish_reason"] or choice.finish_reason


async def stream_chat(
    mesh: RunningMesh,
    body: dict[str, Any],
    request_id: str,
    *,
    on_text: Callable[[Streamed], object] = lambda _: None,
) -> Streamed:
    """Ask and read to the end, or until ``on_text`` returns False: then the connection is closed in the middle."""
    seen = Streamed(times=[time.monotonic()])
    headers = {"authorization": f"Bearer {mesh.key}", "x-request-id": request_id}
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with (
        plain_http(base_url=mesh.rest, headers=headers, timeout=TIMEOUT_S) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        if response.status_code != 200:
            seen.take(json.loads(await response.aread()))
            return seen
        events = read_events(response)
        try:
            async for data in events:
                seen.times.append(time.monotonic())
                if data == "[DONE]":
                    seen.is_done = True
                    continue
                seen.take(json.loads(data))
                if any(choice.text for choice in seen.choices.values()) and on_text(seen) is False:
                    break
        finally:
            await events.aclose()
    return seen
