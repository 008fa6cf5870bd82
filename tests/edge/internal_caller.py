"""An internal service in a process of its own: text to ids at `xds:///tokenizer.M`, then those ids to `xds:///worker.M`.

    python tests/edge/internal_caller.py CONTROL MODEL CONVERSATIONS

Each conversation names no lane and leaves everything to `connect()`. Prints one JSON object: conversations by lane,
those whose two calls met different lanes, and errors by reason.
"""

import asyncio
import collections
import json
import sys

from serin.generation.v1 import tokens_pb2
from serin.tokenizer.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from serin.worker.v1 import worker_pb2, worker_pb2_grpc
from serin_mesh.call import LANE_KEY, VOCABULARY_KEY
from serin_mesh.channels import connect, use_control_plane
from serin_mesh.errors import MeshError
from serin_mesh.lane_memory import conversation
from serin_mesh.settings import ServiceSettings

AT_ONCE = 16
FIRST_ANSWER_S = 30.0


async def main(control: str, model: str, number: int) -> None:
    """Hold the conversations and print what became of them."""
    settings = ServiceSettings(control=control, instance="internal-caller")
    use_control_plane(settings)
    lanes: collections.Counter[str] = collections.Counter()
    errors: collections.Counter[str] = collections.Counter()
    mixed = 0
    async with (
        connect(f"xds:///tokenizer.{model}", settings) as tokenizers,
        connect(f"xds:///worker.{model}", settings) as workers,
    ):
        encode = tokenizer_pb2_grpc.TokenizerServiceStub(tokenizers).Encode
        score = worker_pb2_grpc.WorkerServiceStub(workers).Score
        work = iter(range(number))

        async def hold_some() -> None:
            nonlocal mixed
            for index in work:
                with conversation():
                    try:
                        met = await _converse(encode, score, index)
                    except MeshError as error:
                        errors[error.reason.value] += 1
                        continue
                lanes[met[0]] += 1
                mixed += met[0] != met[1]

        await asyncio.gather(*(hold_some() for _ in range(AT_ONCE)))
    print(json.dumps({"lanes": lanes, "mixed": mixed, "errors": errors}))


async def _converse(encode, score, index: int) -> tuple[str, str]:
    encoding = encode(tokenizer_pb2.EncodeRequest(texts=[f"quiz {index}"]), timeout=FIRST_ANSWER_S)
    encoded = await encoding
    ids = list(encoded.runs[0].token_ids)
    request = worker_pb2.ScoreRequest(
        request_id=f"split-{index}",
        vocabulary_digest=encoded.vocabulary_digest,
        prompt=[tokens_pb2.Segment(tokens=tokens_pb2.TokenRun(token_ids=ids[:-1]))],
        target_token_ids=ids[-1:],
    )
    scoring = score(request, timeout=30, metadata=((VOCABULARY_KEY, encoded.vocabulary_digest),))
    await scoring
    return await _lane(encoding), await _lane(scoring)


async def _lane(call) -> str:
    return dict(await call.initial_metadata()).get(LANE_KEY, "")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
