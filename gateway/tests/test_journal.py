"""What is told about requests: one line each without anything secret, and metrics with closed labels."""

import io
import json

import pytest
from prometheus_client import CollectorRegistry
from serin_gateway.catalog import Worker
from serin_gateway.journal import LogJournal
from serin_gateway.metrics import GatewayMetrics
from serin_gateway.testing import MemoryHouse, saying, small_catalog, small_lane
from serin_mesh.errors import MeshError, Reason
from serin_mesh.logs import configure_logs
from serin_mesh.settings import ServiceSettings

SECRET_TEXT = "the canary sings at midnight"


@pytest.fixture
def log():
    """Everything that is logged, as JSON lines."""
    stream = io.StringIO()
    configure_logs("gateway", ServiceSettings(log_format="json", log_level="debug"), stream)
    return stream


@pytest.fixture
async def watched(fronts_on, log):
    """A door whose journal is the real one."""
    registry = CollectorRegistry()
    house = MemoryHouse(saying(SECRET_TEXT), journal=LogJournal(GatewayMetrics(registry)))
    async with fronts_on(house) as front:
        yield front, registry, log


def lines(log: io.StringIO, event: str) -> list[dict]:
    """Lines of one event."""
    return [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == event]


async def test_one_line_says_everything_and_nothing_secret(watched):
    """Request, tenant, model, lane, worker, tokens, seconds per verb, reason; no text, no key."""
    front, _, log = watched
    key = await front.house.key(tenant="acme")
    headers = {"authorization": f"Bearer {key}", "x-request-id": "mine"}
    body = {"model": "demo", "messages": [{"role": "user", "content": SECRET_TEXT}], "user": SECRET_TEXT}
    assert (await front.http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
    (line,) = lines(log, "request.finished")
    assert (line["request_id"], line["tenant"], line["model"], line["lane"]) == ("mine", "acme", "small", "lane-a")
    assert (line["door"], line["operation"], line["reason"]) == ("rest", "chat.completions", "ok")
    assert line["worker"] == "lane-a-w0"
    assert line["completion_tokens"] == len(SECRET_TEXT) + 1
    assert set(line["verbs"]) >= {"authenticate", "admit", "route", "tokenize", "place", "generate", "settle"}
    await front.http.post("/v1/chat/completions", json={**body, "temperature": 9}, headers=headers)
    await front.http.post("/v1/chat/completions", content=SECRET_TEXT.encode(), headers=headers)
    await front.http.get("/v1/models", headers={"authorization": f"Bearer {SECRET_TEXT}"})
    assert [line["reason"] for line in lines(log, "request.finished")] == [
        "ok",
        "PARAMETER_INVALID",
        "MALFORMED_BODY",
        "KEY_INVALID",
    ]
    assert SECRET_TEXT not in log.getvalue()
    assert key not in log.getvalue()


async def test_a_client_can_never_create_a_series(watched):
    """Whatever is sent, labels are declared models, our operations and our reasons."""
    front, registry, _ = watched
    for n in range(20):
        await front.http.get(f"/v1/{n}")
        await front.http.post("/v1/completions", json={"model": f"m{n}", "prompt": "a"})
        await front.http.request(f"M{n}", "/v1/models")
        await front.chat(user=f"u{n}")
    values: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            for name, value in sample.labels.items():
                values.setdefault(name, set()).add(value)
    assert values["model"] <= {"", "small"}
    assert values["gen_ai_request_model"] == {"small"}
    assert values["operation"] <= {"unknown", "completions", "chat.completions", "models.list"}
    assert values["reason"] <= {"ok", *(reason.value for reason in Reason)}
    assert values["door"] == {"rest", "grpc"}


async def test_requests_and_tokens_are_counted(watched):
    """By reason and kind; times go into the gen_ai histograms."""
    front, registry, _ = watched
    await front.chat(max_tokens=4)
    await front.chat(temperature=9)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    chat = {"door": "rest", "operation": "chat.completions"}
    assert value("serin_gateway_requests_total", **chat, model="small", reason="ok") == 1
    assert value("serin_gateway_requests_total", **chat, model="", reason="PARAMETER_INVALID") == 1
    assert value("serin_gateway_tokens_total", model="small", kind="completion") == 4
    assert value("serin_gateway_tokens_total", model="small", kind="prompt") == len("user: hi\n")
    assert value("serin_gateway_requests_running", door="rest") == 0
    assert value("gen_ai_server_time_to_first_token_seconds_count", gen_ai_request_model="small") == 1
    assert value("gen_ai_server_time_per_output_token_seconds_count", gen_ai_request_model="small") == 1
    duration = {"gen_ai_operation_name": "chat.completions", "error_type": ""}
    assert value("gen_ai_server_request_duration_seconds_count", gen_ai_request_model="small", **duration) == 1


async def test_an_answer_that_changed_its_lane_is_told_of(fronts_on, log):
    """Counted, and the lane that went on with it is named beside the one that it began on."""
    registry, say = CollectorRegistry(), saying("hello")

    def script(worker, order):
        lost = MeshError(Reason.UPSTREAM_UNAVAILABLE, "UNAVAILABLE: Socket closed")
        return [*say(worker, order)[:3], lost] if worker.instance == "old" else say(worker, order)

    house = MemoryHouse(script, journal=LogJournal(GatewayMetrics(registry)))
    lanes = [
        small_lane(name, weight, kv_digest="kv", workers=[Worker(name, f"{name}:1", f"worker.small@{name}", 8)])
        for name, weight in (("old", 10_000_000), ("new", 1))
    ]
    house.catalog.publish(small_catalog(*lanes))
    async with fronts_on(house) as front:
        assert (await front.chat()).status_code == 200
    (line,) = lines(log, "request.finished")
    assert (line["lane"], line["worker"], line["taken_over_by"], line["resumes"]) == ("old", "new", ["new"], 1)
    assert registry.get_sample_value("serin_gateway_lane_takeovers_total", {"model": "small"}) == 1


async def test_a_defect_is_logged_by_place_alone(fronts_on, log):
    """Type, file and line; the exception's own words may quote a prompt."""

    def broken(worker, order):
        raise RuntimeError(SECRET_TEXT)

    async with fronts_on(MemoryHouse(broken, journal=LogJournal(GatewayMetrics(CollectorRegistry())))) as front:
        assert (await front.chat()).status_code == 500
    (line,) = lines(log, "request.crashed")
    assert line["error"] == "RuntimeError"
    assert any("test_journal.py" in place for place in line["place"])
    assert SECRET_TEXT not in log.getvalue()
