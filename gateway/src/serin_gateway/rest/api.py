"""All endpoints of the REST door in one table. Knows nothing about how any of them answers."""

import time
from importlib.metadata import version

from serin_mesh.readiness import Readiness

from serin_gateway.keys.records import Role
from serin_gateway.pipeline import Request
from serin_gateway.rest.anthropic.messages import MESSAGES, PROMPT, count_tokens, create_message
from serin_gateway.rest.anthropic.schemas import CountTokensBody, MessagesBody
from serin_gateway.rest.chat import complete_chat
from serin_gateway.rest.client import Client
from serin_gateway.rest.completions import complete
from serin_gateway.rest.embeddings import EMBEDDINGS, create_embeddings
from serin_gateway.rest.endpoint import Endpoint, Endpoints
from serin_gateway.rest.errors import ANTHROPIC
from serin_gateway.rest.feedback import give_feedback
from serin_gateway.rest.models import Models
from serin_gateway.rest.openapi import document, page
from serin_gateway.rest.parameters import CHAT, COMPLETIONS
from serin_gateway.rest.probes import Probes
from serin_gateway.rest.schemas import ChatBody, CompletionBody, EmbeddingsBody, FeedbackBody

_STREAMED = ("application/json", "text/event-stream")


def rest_endpoints(readiness: Readiness) -> Endpoints:
    """Everything that a gateway serves over HTTP."""
    models, probes, docs = Models(int(time.time())), Probes(readiness), Docs()
    endpoints = [
        Endpoint(
            "POST",
            "/v1/chat/completions",
            "chat.completions",
            answer=complete_chat,
            summary="Answer a conversation",
            body=ChatBody,
            neutral=CHAT,
            produces=_STREAMED,
            is_made_once=True,
        ),
        Endpoint(
            "POST",
            "/v1/completions",
            "completions",
            answer=complete,
            summary="Continue a prompt",
            body=CompletionBody,
            neutral=COMPLETIONS,
            produces=_STREAMED,
            is_made_once=True,
        ),
        Endpoint(
            "POST",
            "/v1/embeddings",
            "embeddings",
            answer=create_embeddings,
            summary="Compute vectors of texts",
            body=EmbeddingsBody,
            neutral=EMBEDDINGS,
        ),
        Endpoint(
            "POST",
            "/v1/messages",
            "messages",
            answer=create_message,
            summary="Answer a conversation, as the Anthropic API",
            body=MessagesBody,
            neutral=MESSAGES,
            produces=_STREAMED,
            is_made_once=True,
            dialect=ANTHROPIC,
        ),
        Endpoint(
            "POST",
            "/v1/messages/count_tokens",
            "messages.count_tokens",
            answer=count_tokens,
            summary="Count a conversation's tokens, as the Anthropic API",
            body=CountTokensBody,
            neutral=PROMPT,
            dialect=ANTHROPIC,
        ),
        Endpoint(
            "POST",
            "/v1/feedback",
            "feedback",
            answer=give_feedback,
            summary="Say what an answer was worth",
            body=FeedbackBody,
        ),
        Endpoint("GET", "/v1/models", "models.list", answer=models.list, summary="Models that may be asked"),
        Endpoint("GET", "/v1/models/{model}", "models.get", answer=models.get, summary="One model"),
        Endpoint(
            "GET",
            "/metrics",
            "metrics",
            needs=Role.VIEWER,
            answer=probes.metrics,
            summary="Metrics for Prometheus",
            produces=("text/plain",),
        ),
        Endpoint("GET", "/openapi.json", "openapi", answer=docs.document, summary="This API as data"),
        Endpoint("GET", "/docs", "docs", answer=docs.page, summary="This API for people", produces=("text/html",)),
        Endpoint("GET", "/live", "live", answer_openly=probes.live, summary="Whether the process lives"),
        Endpoint("GET", "/ready", "ready", answer_openly=probes.ready, summary="Whether requests are welcome"),
    ]
    docs.endpoints = endpoints
    return Endpoints(endpoints)


class Docs:
    """The API's own description, made when first asked for."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self._document = self._page = b""

    async def document(self, client: Client, request: Request) -> None:
        """The OpenAPI document."""
        self._document = self._document or document(self.endpoints, version("serin-gateway"))
        await client.respond(200, self._document)

    async def page(self, client: Client, request: Request) -> None:
        """A page that shows it."""
        self._page = self._page or page(self.endpoints)
        await client.respond(200, self._page, b"text/html; charset=utf-8")
