"""`POST /v1/feedback`: callers say what answers were worth, each once, about their own requests only."""

import pytest
from serin_gateway.observing.sessions import Sessions
from serin_gateway.testing import SECRET


async def answered(front, **headers) -> str:
    """The id of an answer that was given, as the request's own identifier."""
    response = await front.http.post(
        "/v1/chat/completions",
        json={"model": "demo", "messages": [{"role": "user", "content": "hi"}]},
        headers={"x-session-id": "s", **headers},
    )
    assert response.status_code == 200
    front.house.observed.take()
    return response.headers["x-request-id"]


async def give(front, **body):
    """POST feedback."""
    return await front.http.post("/v1/feedback", json=body)


@pytest.mark.parametrize(
    ("said", "score"), [(0.25, 0.25), (1, 1.0), ("up", 1.0), ("down", 0.0)], ids=["number", "whole", "up", "down"]
)
async def test_feedback_reaches_whoever_judges(front, said, score):
    """With model, lane and session of the request; the answer says that it counts."""
    request_id = await answered(front)
    response = await give(front, request_id=request_id, score=said)
    assert response.status_code == 200
    assert response.json() == {"object": "feedback", "request_id": request_id, "score": score, "counted": True}
    (given,) = front.house.observed.take().feedback
    assert (given.request_id, given.model, given.lane, given.score) == (request_id, "small", "lane-a", score)
    assert given.session == Sessions(SECRET).number("default\0s")


async def test_unknown_members_are_named_to_whom_that_is_enough(front):
    """A key made with `--unknown warn`; others are refused."""
    request_id, body = await answered(front), {"score": 1, "why": "good"}
    key = await front.house.key(unknown="warn")
    warned = await front.http.post(
        "/v1/feedback", json=body | {"request_id": request_id}, headers={"authorization": f"Bearer {key}"}
    )
    assert (warned.status_code, warned.headers["x-serin-ignored"]) == (200, "why")
    assert (await give(front, request_id=request_id, **body)).json()["error"]["param"] == "why"


async def test_the_first_counts(front):
    """Saying it again changes nothing, and says so."""
    request_id = await answered(front)
    assert (await give(front, request_id=request_id, score="up")).json()["counted"] is True
    assert (await give(front, request_id=request_id, score="down")).json()["counted"] is False
    assert [one.score for one in front.house.observed.take().feedback] == [1.0]


async def test_the_id_of_an_openai_object_names_its_request(front):
    """`chatcmpl-…` as the SDK shows it, and the identifier of one's own even if it looks like that."""
    completion = await front.openai.chat.completions.create(model="small", messages=[{"role": "user", "content": "hi"}])
    assert (await give(front, request_id=completion.id, score=1)).json()["counted"] is True
    await answered(front, **{"x-request-id": "cmpl-mine"})
    assert (await give(front, request_id="cmpl-mine", score=1)).json()["counted"] is True


async def test_requests_of_others_do_not_exist(front):
    """404 for another tenant's, for one that never was, and for one that had no answer."""
    request_id = await answered(front)
    other = await front.house.key(tenant="other")
    refused = await front.http.post(
        "/v1/feedback", json={"request_id": request_id, "score": 1}, headers={"authorization": f"Bearer {other}"}
    )
    assert refused.status_code == 404
    assert refused.json()["error"]["param"] == "request_id"
    assert (await give(front, request_id="req-never", score=1)).json() == refused.json()
    failed = await front.chat(model="nobody")
    assert (await give(front, request_id=failed.headers["x-request-id"], score=1)).status_code == 404


@pytest.mark.parametrize(
    ("body", "parameter", "reason"),
    [
        ({"request_id": "r", "score": 1, "comment": "nice"}, "comment", "PARAMETER_UNKNOWN"),
        ({"request_id": "r", "score": 1.5}, "score", "PARAMETER_INVALID"),
        ({"request_id": "r", "score": -1}, "score", "PARAMETER_INVALID"),
        ({"request_id": "r", "score": "good"}, "score", "PARAMETER_INVALID"),
        ({"request_id": "r", "score": True}, "score", "PARAMETER_INVALID"),
        ({"request_id": "r", "score": None}, "score", "PARAMETER_INVALID"),
        ({"request_id": "r"}, "score", "PARAMETER_INVALID"),
        ({"score": 1}, "request_id", "PARAMETER_INVALID"),
        ({"request_id": "a b", "score": 1}, "request_id", "PARAMETER_INVALID"),
        ({"request_id": "r" * 200, "score": 1}, "request_id", "PARAMETER_INVALID"),
    ],
)
async def test_bad_feedback_is_refused_by_name(front, body, parameter, reason):
    """400 with the member's name; nothing is taken."""
    response = await give(front, **body)
    assert response.status_code == 400
    assert (response.json()["error"]["param"], response.json()["error"]["reason"]) == (parameter, reason)
    assert front.house.observed.take() is None


async def test_without_a_key_nothing_is_said(front):
    """401."""
    response = await front.http.post("/v1/feedback", json={}, headers={"authorization": ""})
    assert response.status_code == 401


async def test_feedback_waits_for_a_store_that_is_down(front):
    """503 with retry-after, never 404: it is not known whether there was such a request."""
    request_id = await answered(front)
    await front.house.keeper.write()
    front.house.records.down = True
    response = await give(front, request_id=request_id, score=1)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
