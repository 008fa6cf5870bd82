"""The service as a process, with a real Valkey and the control plane's twin."""

import asyncio
import json
import os
import signal
import sys

import pytest
from cache_requests import ANSWER, IDS, put, recall
from serin.cache.v1 import cache_pb2, cache_pb2_grpc
from serin.control.v1 import registry_pb2
from serin_mesh.channels import connect
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import ControlTwin, running
from worker_twin import BLOCK, SECRET, WorkerTwin, keys_of, lanes, serving


@pytest.fixture
def secret_file(tmp_path):
    """The mesh secret."""
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return path


async def start(*flags, **streams):
    """Start the service."""
    command = [sys.executable, "-m", "serin_cache_svc", "--log-format", "json", *flags]
    return await asyncio.create_subprocess_exec(*command, env=dict(os.environ), **streams)


async def test_it_serves_and_outlives_its_store(valkey, secret_file):
    """Announced, watching, answering; Redis killed: misses; SIGTERM: a clean end."""
    control, twin = ControlTwin(), WorkerTwin(*keys_of("acme", IDS))
    async with running(control.register, "control") as plane, serving(twin) as worker:
        await control.publish(lanes(worker))
        process = await start(
            *("--cache-redis", valkey.url, "--mesh-secret-file", str(secret_file)),
            *("--control", plane.address, "--instance", "cache-1"),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            instance = await control.state_of("cache-1", registry_pb2.INSTANCE_STATE_READY)
            assert instance.registration.service == registry_pb2.SERVICE_KIND_CACHE
            while json.loads(await process.stderr.readline()).get("event") != "cache.snapshot":
                pass
            async with connect(instance.registration.endpoint, ServiceSettings()) as channel:
                stub = cache_pb2_grpc.CacheServiceStub(channel)
                response = await stub.Recall(recall(allow_answer=True))
                assert [(h.endpoint, h.cached_token_count) for h in response.holders] == [(worker, 3 * BLOCK)]
                assert (await stub.PutAnswer(put())).stored
                assert (await stub.Recall(recall(allow_answer=True))).answer == ANSWER
                await valkey.kill()
                response = await stub.Recall(recall(allow_answer=True))
                assert not response.HasField("answer")
                assert len(response.holders) == 1
                assert not (await stub.PutAnswer(put())).stored
                assert not (await stub.GetStats(cache_pb2.GetStatsRequest())).store_available
            process.send_signal(signal.SIGTERM)
            await process.communicate()
            assert process.returncode == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "--cache-redis"),
        (("--cache-redis", "http://me:secret@x"), "--cache-redis: 'http://***@x'"),
        (("--cache-redis", "unix:///x", "--store-budget-ms", "0"), "--store-budget-ms: '0'"),
        (("--cache-redis", "unix:///x"), "--mesh-secret-file"),
    ],
)
async def test_a_wrong_setting_is_one_line_and_status_2(flags, said):
    """The line names the flag, the value and what is accepted."""
    process = await start(*flags, stderr=asyncio.subprocess.PIPE)
    _, error = await process.communicate()
    assert process.returncode == 2
    (line,) = error.decode().splitlines()
    assert said in line
    assert "accepted" in line
