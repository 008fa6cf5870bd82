"""Asks a gateway over plain HTTP, as any program would; answers come in pieces as they are made.

Knows the OpenAI shape of chat requests, nothing about local meshes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from serin_cli.errors import CliError

CONNECT_S = 10.0
BETWEEN_PIECES_S = 300.0  # a busy machine may need long for a long prompt

Message = Mapping[str, str]


class AskError(CliError):
    """The gateway refused, or the answer broke off; the message is the gateway's own where it gave one."""


class ChatClient:
    """One gateway, one key; a context manager."""

    def __init__(self, base_url: str, key: str) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            headers={"authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(BETWEEN_PIECES_S, connect=CONNECT_S),
            trust_env=False,  # a proxy of the environment is not meant for a mesh on this machine
        )

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def models(self) -> list[str]:
        """Names of the models that can be asked."""
        try:
            response = self._http.get("/models")
        except httpx.HTTPError as error:
            raise _unreachable(self._http, error) from error
        if response.is_error:
            raise AskError(_refusal(response))
        return [str(model["id"]) for model in response.json()["data"]]

    def stream(self, model: str, messages: Sequence[Message], **options: Any) -> Iterator[str]:
        """Ask, and give the answer's text piece by piece.

        Raises:
            AskError: refused, unreachable or broken off.
        """
        body = {"model": model, "messages": list(messages), "stream": True, **options}
        try:
            with self._http.stream("POST", "/chat/completions", json=body) as response:
                if response.is_error:
                    response.read()
                    raise AskError(_refusal(response))
                yield from _pieces(response.iter_lines())
        except httpx.HTTPError as error:
            raise _unreachable(self._http, error) from error


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise AskError(f"the answer broke off: {event['error'].get('message', event['error'])}")
        for choice in event.get("choices", []):
            if text := choice.get("delta", {}).get("content"):
                yield text
    raise AskError("the answer broke off before its end")


def _refusal(response: httpx.Response) -> str:
    try:
        return f"refused ({response.status_code}): {response.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"refused ({response.status_code}): {response.text[:200]}"


def _unreachable(http: httpx.Client, error: httpx.HTTPError) -> AskError:
    return AskError(
        f"{http.base_url} did not answer ({type(error).__name__}: {error}); see `serin status`, `serin logs`"
    )
