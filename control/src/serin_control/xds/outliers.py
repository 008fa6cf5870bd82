"""Which endpoints callers leave out for a moment, because nearly everything they ask there fails. Pure.

Ejecting works for the only endpoint of a version too: its callers are refused at once instead of failing one by one,
and are told to try another lane. It is for seconds, and never for more than half of several endpoints.

What was measured (grpcio 1.85, Envoy 1.40): grpcio counts every status but OK as a failure, a caller's own cancel
included, also of calls that are pinned to an endpoint; pinned calls themselves reach an endpoint that is left out.
Envoy does not count a caller's cancel, nor a status that comes with the trailers (our services send their lane first):
it leaves out what it cannot reach, what breaks off, and what refuses a call outright.
"""

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster import v3 as cluster

from serin_control.instance import LANE_SERVICES, Service

FAILING_PERCENT = 95
MIN_CALLS = 20
MIN_CALLS_CANCELLED = 100
"""Calls in an interval before their failures count: where cancels are failures, more than a caller that takes only the
first tokens of its streams is likely to end on its own in two seconds."""

_INTERVAL = timedelta(seconds=2)
_LONGEST = timedelta(seconds=10)


def outliers(service: Service, *, by_envoy: bool) -> cluster.OutlierDetection:
    """Outlier detection for a service, as Envoy or an `xds:///` client does it."""
    if service is Service.GATEWAY:
        return _unreachable()
    cancels_count = service in LANE_SERVICES and not by_envoy
    return cluster.OutlierDetection(
        interval=_INTERVAL,
        base_ejection_time=_INTERVAL,
        max_ejection_time=_LONGEST,
        max_ejection_percent=50,
        always_eject_one_host=True,
        consecutive_5xx=20,
        enforcing_consecutive_5xx=100,
        consecutive_gateway_failure=5,
        enforcing_consecutive_gateway_failure=100,
        enforcing_success_rate=0,
        failure_percentage_threshold=FAILING_PERCENT,
        enforcing_failure_percentage=100,
        failure_percentage_minimum_hosts=1,
        failure_percentage_request_volume=MIN_CALLS_CANCELLED if cancels_count else MIN_CALLS,
    )


def _unreachable() -> cluster.OutlierDetection:
    """Only what cannot be reached or breaks off counts.

    What a gateway answers is about the request, and its sender chooses that: who asks often enough for a model that is
    not ready must not take the gateway from everybody else.
    """
    return cluster.OutlierDetection(
        interval=_INTERVAL,
        base_ejection_time=_INTERVAL,
        max_ejection_time=_LONGEST,
        max_ejection_percent=50,
        always_eject_one_host=True,
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=5,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_local_origin_success_rate=0,
        enforcing_failure_percentage_local_origin=0,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        enforcing_failure_percentage=0,
    )
