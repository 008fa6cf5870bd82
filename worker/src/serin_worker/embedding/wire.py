"""Protobuf to embedding requests, and vectors back.

Knows the contract, and nothing about loops or servers.
"""

from typing import TYPE_CHECKING

from serin.worker.v1 import worker_pb2

from serin_worker.embedding.request import EmbeddingRequest
from serin_worker.embedding.serving import EmbeddingServing

if TYPE_CHECKING:
    from serin_worker.embedding.loop import Embedded


def read_embedding(request: worker_pb2.EmbedRequest) -> EmbeddingRequest:
    """Inputs as the loop wants them; it is the loop that looks whether they can be computed."""
    return EmbeddingRequest([list(run.token_ids) for run in request.runs], request.dimension_count)


def embed_response(embedded: "Embedded") -> worker_pb2.EmbedResponse:
    """The vectors, in order."""
    return worker_pb2.EmbedResponse(
        embeddings=[worker_pb2.Embedding(values=vector) for vector in embedded.vectors.tolist()]
    )


def describe(serving: EmbeddingServing) -> worker_pb2.DescribeWorkerResponse:
    """What a worker with an embedding model is."""
    about = serving.about
    return worker_pb2.DescribeWorkerResponse(
        model=serving.model,
        version=serving.version,
        instance=serving.instance,
        vocabulary_digest=serving.vocabulary_digest,
        kv_digest=about.vector_digest,
        numerics_class=about.numerics_class,
        numerics=about.numerics,
        precision=about.precision,
        context_length=about.bounds.max_tokens,
        max_sequence_count=serving.max_num_inputs,
        vocabulary_size=about.bounds.vocabulary_size,
        step_count=serving.loop.counts.num_steps,
        embedding_dimension_count=about.bounds.num_dimensions,
    )
