"""A response: the object, whole, and the events of its stream. Knows nothing about how answers are made or kept."""

import json
import time
from typing import Any

import orjson
from pydantic import BaseModel
from serin_mesh.errors import MeshError

from serin_gateway.conversation import Conversation
from serin_gateway.events import Completed, Event, Started, Usage
from serin_gateway.receipt import Receipt
from serin_gateway.rest.responses.output import Output
from serin_gateway.rest.responses.schemas import ResponseBody, SchemaFormat

_CODES = {400: "invalid_prompt", 413: "invalid_prompt", 429: "rate_limit_exceeded"}
"""Of the codes that this API knows; everything else is a ``server_error``."""


class ResponseShape:
    """One response.

    Args:
        response_id: its name.
        body: what was asked; most of it comes back.
        is_kept: whether it is to be kept.
    """

    stream_end = b""

    def __init__(self, response_id: str, body: ResponseBody, *, is_kept: bool) -> None:
        self.response_id = response_id
        self.is_kept = is_kept
        self._asked = _asked(body)
        self._facts: dict[str, Any] = {}
        self._output = Output()
        self._usage: Usage | None = None
        self._completed_at: int | None = None
        self._num_events = 0

    def asked_as_in(self, conversation: Conversation) -> None:
        """Say what was asked as a conversation has it that guards changed; what it has not was not looked at."""
        if self._asked["instructions"] is not None:
            self._asked["instructions"] = conversation.messages[0].texts[0]
        shown = {tool.name: tool for tool in conversation.tools}
        for tool in self._asked["tools"]:
            found = shown.get(tool["name"])
            tool["description"] = found.description or None if found else None
            tool["parameters"] = json.loads(found.parameters_json) if found and found.parameters_json else None

    def begin(self, receipt: Receipt) -> None:
        """The request is placed."""
        self._facts = {
            "id": self.response_id,
            "object": "response",
            "created_at": int(time.time()),
            "model": receipt.model,
        }

    def chunk(self, event: Event) -> bytes:
        """One event as server-sent events."""
        if isinstance(event, Completed):
            self.add(event)
            return self._event(f"response.{self._status}", {"response": self._body(self._status)})
        if isinstance(event, Started):
            body = {"response": self._body("in_progress")}
            return self._event("response.created", body) + self._event("response.in_progress", body)
        return b"".join([self._event(name, members) for name, members in self._output.take(event)])

    def add(self, event: Event) -> None:
        """Note what happened."""
        if isinstance(event, Completed):
            self._complete(event.usage)
            return
        for _ in self._output.take(event):
            pass

    def whole(self) -> bytes:
        """The `response` object."""
        return orjson.dumps(self._body(self._status))

    def failure(self, error: MeshError) -> bytes:
        """The end of a stream whose answer failed: what there is of it, and why there is no more."""
        told = {
            "code": _CODES.get(error.status.http, "server_error"),
            "message": error.message,
            "param": error.metadata.get("parameter"),
            "type": error.status.openai_type,
            "reason": error.reason.value,
        }
        self.is_kept = False
        response = self._body("failed") | {"error": told, "output": self._output.items_so_far}
        return self._event("response.failed", {"response": response})

    def kept(self, usage: Usage) -> tuple[bytes, bytes]:
        """The response without its output, and the output, to be kept."""
        self._complete(usage)
        return orjson.dumps(self._body(self._status) | {"output": []}), orjson.dumps(self._output.items)

    def _complete(self, usage: Usage) -> None:
        """It is complete; what is kept and what is told are of the same moment."""
        self._usage = usage
        self._completed_at = self._completed_at or int(time.time())

    @property
    def _status(self) -> str:
        return "incomplete" if self._output.cut_by else "completed"

    def _body(self, status: str) -> dict[str, Any]:
        cut_by = self._output.cut_by
        return {
            **self._facts,
            "status": status,
            "background": False,
            "completed_at": self._completed_at if status == "completed" else None,
            "error": None,
            "incomplete_details": {"reason": cut_by} if status == "incomplete" else None,
            **self._asked,
            "output": self._output.items,
            "store": self.is_kept,
            "usage": None if self._usage is None else usage_body(self._usage),
        }

    def _event(self, name: str, members: dict[str, Any]) -> bytes:
        body = orjson.dumps({"type": name, "sequence_number": self._num_events, **members})
        self._num_events += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), body)


def usage_body(usage: Usage) -> dict[str, Any]:
    """Usage as this API writes it; writing to a cache costs nothing here, and is not counted."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _asked(body: ResponseBody) -> dict[str, Any]:
    """What was asked, with the defaults that were in force."""
    choice = body.tool_choice
    effort = body.reasoning.effort if body.reasoning is not None else None
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": effort, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": _format(body), "verbosity": "medium"},
        "tool_choice": choice.model_dump() if isinstance(choice, BaseModel) else choice or "auto",
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": bool(tool.strict),
            }
            for tool in body.tools or ()
        ],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def _format(body: ResponseBody) -> dict[str, Any]:
    given = body.text.format if body.text is not None else None
    if not isinstance(given, SchemaFormat):
        return {"type": "text" if given is None else given.type}
    return {
        "type": "json_schema",
        "name": given.name,
        "description": given.description,
        "schema": given.json_schema,
        "strict": bool(given.strict),
    }
