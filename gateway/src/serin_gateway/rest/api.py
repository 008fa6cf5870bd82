"""All endpoints of the REST door in one table. Knows nothing about how any of them answers."""

import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from serin_mesh.errors import Reason
from serin_mesh.readiness import Readiness

from serin_gateway.keys.records import Ability, Role
from serin_gateway.pipeline import Request
from serin_gateway.rest import admin
from serin_gateway.rest.admin_schemas import KeyBody, OrganizationBody, ProjectBody
from serin_gateway.rest.anthropic.messages import MESSAGES, PROMPT, count_tokens, create_message
from serin_gateway.rest.anthropic.models import BETA
from serin_gateway.rest.anthropic.models import LISTS as MODELS_LISTS
from serin_gateway.rest.anthropic.models import QUERY as MODELS_QUERY
from serin_gateway.rest.anthropic.schemas import CountTokensBody, MessagesBody
from serin_gateway.rest.chat import complete_chat
from serin_gateway.rest.client import Client
from serin_gateway.rest.completions import complete
from serin_gateway.rest.embeddings import EMBEDDINGS, create_embeddings
from serin_gateway.rest.endpoint import OF_A_MODEL, Endpoint, Endpoints
from serin_gateway.rest.errors import ANTHROPIC
from serin_gateway.rest.errors import RESPONSES as RESPONSES_DIALECT
from serin_gateway.rest.feedback import give_feedback
from serin_gateway.rest.models import Models
from serin_gateway.rest.openapi import document, page
from serin_gateway.rest.parameters import CHAT, COMPLETIONS, RESPONSES
from serin_gateway.rest.probes import Probes
from serin_gateway.rest.responses.create import create_response
from serin_gateway.rest.responses.kept import (
    LIST_QUERY,
    LISTS,
    RETRIEVE_QUERY,
    cancel_response,
    delete_response,
    list_input_items,
    retrieve_response,
)
from serin_gateway.rest.responses.schemas import ResponseBody
from serin_gateway.rest.schemas import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingsBody,
    FeedbackBody,
    TokenizeBody,
)
from serin_gateway.rest.tokens import DETOKENIZE, TOKENIZE, detokenize, tokenize

_STREAMED = ("application/json", "text/event-stream")


def rest_endpoints(readiness: Readiness) -> Endpoints:
    """Everything that a gateway serves over HTTP."""
    models, probes, docs = Models(int(time.time())), Probes(readiness), Docs()
    endpoints = [
        Endpoint(
            "POST",
            "/v1/chat/completions",
            "chat.completions",
            refusals=OF_A_MODEL,
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
            refusals=OF_A_MODEL,
            answer=complete,
            summary="Continue a prompt",
            body=CompletionBody,
            neutral=COMPLETIONS,
            produces=_STREAMED,
            is_made_once=True,
        ),
        *response_endpoints(),
        Endpoint(
            "POST",
            "/v1/embeddings",
            "embeddings",
            refusals=OF_A_MODEL,
            answer=create_embeddings,
            summary="Compute vectors of texts",
            body=EmbeddingsBody,
            neutral=EMBEDDINGS,
            is_made_once=True,
        ),
        Endpoint(
            "POST",
            "/v1/messages",
            "messages",
            refusals=OF_A_MODEL,
            answer=create_message,
            summary="Answer a conversation, as the Anthropic API",
            body=MessagesBody,
            query=BETA,
            neutral=MESSAGES,
            produces=_STREAMED,
            is_made_once=True,
            dialect=ANTHROPIC,
        ),
        Endpoint(
            "POST",
            "/v1/messages/count_tokens",
            "messages.count_tokens",
            refusals=OF_A_MODEL,
            answer=count_tokens,
            summary="Count a conversation's tokens, as the Anthropic API",
            body=CountTokensBody,
            query=BETA,
            neutral=PROMPT,
            dialect=ANTHROPIC,
        ),
        Endpoint(
            "POST",
            "/tokenize",
            "tokenize",
            refusals=OF_A_MODEL,
            answer=tokenize,
            summary="Tokens of a text or a conversation, as vLLM",
            body=TokenizeBody,
            neutral=TOKENIZE,
        ),
        Endpoint(
            "POST",
            "/detokenize",
            "detokenize",
            refusals=OF_A_MODEL,
            answer=detokenize,
            summary="The text of tokens, as vLLM",
            body=DetokenizeBody,
            neutral=DETOKENIZE,
        ),
        Endpoint(
            "POST",
            "/v1/feedback",
            "feedback",
            refusals=(Reason.NOT_FOUND,),
            answer=give_feedback,
            summary="Say what an answer was worth",
            body=FeedbackBody,
            ability=Ability.FEEDBACK,
        ),
        Endpoint(
            "GET",
            "/v1/models",
            "models.list",
            ability=Ability.MODELS,
            answer=models.list,
            summary="Models that may be asked; with the header anthropic-version page by page, as the Anthropic API",
            query={**_with_version(MODELS_QUERY), "client_version": "Accepted; the list is the same for all of them."},
            query_lists=MODELS_LISTS,
            dialect_of_anthropic=ANTHROPIC,
        ),
        Endpoint(
            "GET",
            "/v1/models/{model}",
            "models.get",
            refusals=(Reason.MODEL_NOT_FOUND,),
            ability=Ability.MODELS,
            answer=models.get,
            summary="One model; with the header anthropic-version as the Anthropic API",
            query=_with_version(BETA),
            dialect_of_anthropic=ANTHROPIC,
        ),
        *admin_endpoints(),
        Endpoint(
            "GET",
            "/metrics",
            "metrics",
            needs=Role.VIEWER,
            ability=Ability.MONITORING,
            answer=probes.metrics,
            summary="Metrics for Prometheus",
            produces=("text/plain",),
            takes_any_query=True,
        ),
        Endpoint(
            "GET",
            "/openapi.json",
            "openapi",
            ability=Ability.MODELS,
            answer=docs.document,
            summary="This API as data",
            takes_any_query=True,
        ),
        Endpoint(
            "GET",
            "/docs",
            "docs",
            ability=Ability.MODELS,
            answer=docs.page,
            summary="This API for people",
            produces=("text/html",),
            takes_any_query=True,
        ),
        Endpoint(
            "GET",
            "/live",
            "live",
            refusals=(Reason.NOT_READY,),
            answer_openly=probes.live,
            summary="Whether the process lives",
        ),
        Endpoint(
            "GET",
            "/ready",
            "ready",
            refusals=(Reason.NOT_READY,),
            answer_openly=probes.ready,
            summary="Whether a model would answer now",
        ),
    ]
    docs.endpoints = endpoints
    return Endpoints(endpoints)


def response_endpoints() -> list[Endpoint]:
    """Responses: made, and what becomes of those that are kept."""
    return [
        Endpoint(
            "POST",
            "/v1/responses",
            "responses",
            refusals=(*OF_A_MODEL, Reason.NOT_FOUND),
            answer=create_response,
            summary="Answer a conversation, as the Responses API",
            body=ResponseBody,
            neutral=RESPONSES,
            produces=_STREAMED,
            is_made_once=True,
            dialect=RESPONSES_DIALECT,
        ),
        Endpoint(
            "GET",
            "/v1/responses/{response_id}",
            "responses.retrieve",
            refusals=(Reason.NOT_FOUND,),
            answer=retrieve_response,
            summary="A kept response",
            query=RETRIEVE_QUERY,
            query_lists=LISTS,
        ),
        Endpoint(
            "DELETE",
            "/v1/responses/{response_id}",
            "responses.delete",
            refusals=(Reason.NOT_FOUND,),
            answer=delete_response,
            summary="Forget a kept response; what continues it goes on",
        ),
        Endpoint(
            "GET",
            "/v1/responses/{response_id}/input_items",
            "responses.input_items",
            refusals=(Reason.NOT_FOUND,),
            answer=list_input_items,
            summary="The input of a kept response",
            query=LIST_QUERY,
            query_lists=LISTS,
        ),
        Endpoint(
            "POST",
            "/v1/responses/{response_id}/cancel",
            "responses.cancel",
            refusals=(Reason.NOT_FOUND,),
            produces=(),
            answer=cancel_response,
            summary="Refused by name: no response is made in the background",
        ),
    ]


def admin_endpoints() -> list[Endpoint]:
    """What administrators, and who looks over their shoulders, are served."""

    def one(method: str, path: str, operation: str, **more: Any) -> Endpoint:
        return Endpoint(method, path, operation, ability=Ability.ADMINISTRATION, **more)

    days = "a day, YYYY-MM-DD (UTC), included; default: today"
    return [
        one(
            "POST",
            "/admin/keys",
            "admin.keys.create",
            needs=Role.ADMIN,
            answer=admin.create_key,
            summary="Make a key; it is shown this once",
            body=KeyBody,
        ),
        one(
            "GET",
            "/admin/keys",
            "admin.keys.list",
            needs=Role.ADMIN,
            answer=admin.list_keys,
            summary="All keys, and what they may do",
        ),
        one(
            "DELETE",
            "/admin/keys/{key}",
            "admin.keys.revoke",
            refusals=(Reason.NOT_FOUND,),
            needs=Role.ADMIN,
            answer=admin.revoke_key,
            summary="End a key, within a second everywhere",
        ),
        one(
            "GET",
            "/admin/tenants",
            "admin.tenants.list",
            needs=Role.OPERATOR,
            answer=admin.list_tenants,
            summary="Organizations and projects, and their limits",
        ),
        one(
            "PUT",
            "/admin/organizations/{organization}",
            "admin.organizations.put",
            needs=Role.ADMIN,
            answer=admin.put_organization,
            summary="Declare an organization and its limits",
            body=OrganizationBody,
        ),
        one(
            "PUT",
            "/admin/projects/{project}",
            "admin.projects.put",
            refusals=(Reason.CONFIG_CONFLICT,),
            needs=Role.ADMIN,
            answer=admin.put_project,
            summary="Declare a project, whose it is, and its limits",
            body=ProjectBody,
        ),
        one(
            "GET",
            "/admin/usage",
            "admin.usage",
            needs=Role.VIEWER,
            answer=admin.usage,
            summary="What was used and what it costs",
            produces=("application/json", "text/csv"),
            query={
                "from": f"First day: {days}.",
                "to": f"Last day: {days}.",
                "by": "organization, project, key, model, version or day; default: project.",
                "format": "json or csv; default: json.",
            },
        ),
        one(
            "GET",
            "/admin/audit",
            "admin.audit",
            needs=Role.ADMIN,
            answer=admin.audit,
            summary="Who changed what",
            query={"first": "Number of the first entry; default: 1.", "count": "Entries, 1 to 1000; default: 100."},
        ),
    ]


def _with_version(query: Mapping[str, str]) -> Mapping[str, str]:
    return {name: f"With anthropic-version. {what}" for name, what in query.items()}


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
