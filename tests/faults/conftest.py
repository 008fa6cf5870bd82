"""Two meshes for the files of faults: what is harmed here, nobody else uses, and every test leaves it well again."""

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from harness.asking import COUNTED, TINY
from harness.clients import plain_openai
from harness.crowd import NUM_WORKERS, SMALL, crowd_of, environment, write_flawed_model
from harness.running_mesh import RunningMesh
from harness.valkey import FORGETS, KEEPS, Valkey
from harness.workers import Workers
from openai import AsyncOpenAI


def harmed_declaration(tiny: Path) -> str:
    """A `serin.yaml`: the model with random weights, and one that is served by whoever announces itself."""
    return f"""\
models:
  {TINY}:
    path: {tiny}
    precision: float32
    numerics: invariant
    context_length: 4096
    kv_blocks: 320
    tokenizers: 2
  {COUNTED}:
    path: {tiny}
    workers: 0
    price: {{input: 150000, cached_input: 75000, output: 600000}}
"""


@pytest.fixture(scope="package")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh whose workers may be harmed, all but one at a time; its drains are short."""
    folder = tmp_path_factory.mktemp("crowd")
    declaration = crowd_of(write_flawed_model(folder / "model"))
    running = RunningMesh(folder / "state", declaration, environment=environment())
    running.start()
    yield running
    running.stop()


@pytest.fixture
def workers(crowd: RunningMesh) -> Workers:
    """The workers of `crowd`."""
    return Workers(crowd, SMALL, NUM_WORKERS)


@pytest.fixture(scope="package")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Valkey]]:
    """The state and the cache store of `mesh`, which a test may kill and stop."""
    folder = tmp_path_factory.mktemp("stores")
    both = {"state": Valkey(folder / "state", KEEPS), "cache": Valkey(folder / "cache", FORGETS)}
    for store in both.values():
        store.start()
    yield both
    for store in both.values():
        store.stop()


@pytest.fixture(scope="package")
def mesh(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, stores: dict[str, Valkey]
) -> Iterator[RunningMesh]:
    """A mesh that may be harmed: two tokenizers, one worker with few blocks, stores of the test's own."""
    flags = ("--state-redis", stores["state"].url, "--cache-redis", stores["cache"].url)
    running = RunningMesh(tmp_path_factory.mktemp("faults") / "state", harmed_declaration(tiny_model), flags)
    running.start()
    yield running
    for store in stores.values():
        store.go_on()
    running.stop()


@pytest.fixture
async def client(mesh: RunningMesh) -> AsyncIterator[AsyncOpenAI]:
    """The official SDK, without its retries: every failure is seen."""
    async with plain_openai(f"{mesh.rest}/v1", mesh.key) as openai:
        yield openai


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Seeded randomness; the seed is printed, and SERIN_SEED in the environment replays it."""
    import os

    seed = int(os.environ.get("SERIN_SEED") or random.randrange(2**32))
    print(f"SERIN_SEED={seed} replays {request.node.name}")
    return random.Random(seed)
