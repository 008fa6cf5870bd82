"""`python -m serin_control` as a process: what it refuses, what survives its death and that of its store."""

import asyncio
import urllib.request

import pytest
from control_process import PATIENCE_S, control_process, spawn
from control_running import echo
from control_valkey import Valkey
from serin.control.v1 import config_pb2, config_pb2_grpc, lane_pb2, lane_pb2_grpc, registry_pb2, registry_pb2_grpc
from serin_control.instance import Service
from serin_mesh.channels import connect
from serin_mesh.settings import ServiceSettings

CONFIG = "models: {small: {path: x}}\n"
IDLE_BYTES = 200 << 20


@pytest.mark.parametrize(
    ("flags", "text", "said"),
    [
        (["--no-such-flag", "1"], CONFIG, "serin-control: --no-such-flag: unknown flag: accepted: "),
        (
            [],
            "models:\n  a: {pth: x}\n",
            "serin-control: --config-file: {file}:2: models.a.pth: unknown key (did you mean 'path'?); accepted: ",
        ),
        ([], "", "serin-control: --config-file: {file}: empty; accepted: "),
    ],
)
async def test_bad_settings_end_it_with_one_line_and_status_2(tmp_path, flags, text, said):
    """Key, value, what is accepted."""
    file = tmp_path / "serin.yaml"
    file.write_text(text)
    process = await spawn("--config-file", str(file), *flags)
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert stderr.decode().splitlines()[0].startswith(said.format(file=file))


async def test_a_missing_file_and_an_unsafe_store_end_it_with_status_2(tmp_path):
    """A path that is wrong, a Redis that would forget."""
    process = await spawn("--config-file", str(tmp_path / "none.yaml"))
    _, stderr = await process.communicate()
    assert process.returncode == 2
    missing = f"serin-control: --config-file: {tmp_path}/none.yaml: cannot be read: No such file or directory; "
    assert stderr.decode() == missing + "accepted: a readable file\n"
    forgetful = await Valkey(tmp_path, appendonly="no").start()
    process = await spawn("--state-redis", forgetful.url)
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert stderr.decode().startswith("serin-control: --state-redis: appendonly is 'no'")
    await forgetful.stop()


async def test_what_it_knew_survives_its_death(tmp_path, valkey):
    """SIGKILL: the configuration that was applied and the instances are there again at once; idle it is small."""
    file = tmp_path / "serin.yaml"
    file.write_text(CONFIG)
    flags = ("--config-file", str(file), "--state-redis", valkey.url)
    async with control_process(*flags) as first, connect(first.address, ServiceSettings()) as channel:
        stub = config_pb2_grpc.ConfigServiceStub(channel)
        applied = await stub.ApplyConfig(
            config_pb2.ApplyConfigRequest(yaml=CONFIG + "limits: {tokens_per_minute: 5}\n")
        )
        assert applied.revision == 2
        port = first.address.rpartition(":")[2]
        async with echo(first.address, "t1", Service.TOKENIZER), echo(first.address, "w1"):
            before = await lanes_of(channel)
            assert first.rss_bytes < IDLE_BYTES
            await stored(valkey.url)
            await first.kill()
            async with (
                control_process("--port", port, *flags) as again,
                connect(again.address, ServiceSettings()) as newer,
            ):
                await newer.channel_ready()  # gRPC remembers that the old process refused connections
                after = await lanes_of(newer)
                assert after.models[0].lanes[0].lane == before.models[0].lanes[0].lane
                assert after.policy.default_limits.tokens_per_minute == 5
                assert after.revision > before.revision
                found = await config_pb2_grpc.ConfigServiceStub(newer).GetConfig(config_pb2.GetConfigRequest())
                assert found.revision == 2


async def test_it_serves_on_while_its_store_is_away(valkey):
    """The last configuration serves, changes are refused, an alarm stands until the store is back."""
    async with (
        control_process("--state-redis", valkey.url) as control,
        connect(control.address, ServiceSettings()) as channel,
    ):
        configs = config_pb2_grpc.ConfigServiceStub(channel)
        await configs.ApplyConfig(config_pb2.ApplyConfigRequest(yaml=CONFIG))
        await valkey.stop()
        watch = registry_pb2_grpc.RegistryServiceStub(channel).WatchInstances(registry_pb2.WatchInstancesRequest())
        await alarms_become(watch, lambda alarms: any("state Redis" in alarm for alarm in alarms))
        assert (await configs.GetConfig(config_pb2.GetConfigRequest())).yaml == CONFIG
        async with echo(control.address, "t1", Service.TOKENIZER), echo(control.address, "w1"):
            assert (await lanes_of(channel)).models[0].lanes
            metrics = await asyncio.to_thread(scrape, control.metrics_address)
            assert 'serin_control_instances{service="worker",state="ready"} 1.0' in metrics
            assert "serin_control_alarms 1.0" in metrics
            assert "serin_control_refusals 0.0" in metrics
            await valkey.start()
            await alarms_become(watch, lambda alarms: not any("state Redis" in alarm for alarm in alarms))
        watch.cancel()


def scrape(address: str) -> str:
    """What Prometheus would read."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        return answer.read().decode()


async def lanes_of(channel) -> lane_pb2.WatchLanesResponse:
    """The lanes, once there are some."""
    watch = lane_pb2_grpc.LaneServiceStub(channel).WatchLanes(lane_pb2.WatchLanesRequest())
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for found in watch:
                if found.models and found.models[0].lanes:
                    return found
    except TimeoutError:
        raise AssertionError("no lane was formed") from None
    finally:
        watch.cancel()
    raise AssertionError("the watch ended before there were lanes")


async def alarms_become(watch, holds) -> None:
    """Wait until the standing alarms are right."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for found in watch:
                seen = list(found.alarms)
                if holds(seen):
                    return
    except TimeoutError:
        raise AssertionError(f"the alarms stay {seen}") from None
    raise AssertionError(f"the watch ended at {seen}")


async def stored(url: str) -> None:
    """Wait until both instances are in the store."""
    from serin_control.redis_store import RedisStore

    store = RedisStore(url)
    while len((await store.read_mesh()).instances) < 2:  # noqa: ASYNC110 - Redis cannot be awaited for this
        await asyncio.sleep(0.05)
    await store.close()
