"""Messages for routes: which call goes to which cluster. Pure functions; knows nothing about endpoints or clients.

A call that names a lane goes to that lane or nowhere. One that names none but carries ids follows the weights among
the lanes of its vocabulary, and goes to any of them where none has weight; any other follows the weights among all.
"""

from datetime import timedelta

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities import v3 as previous_priorities
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any
from serin_mesh.call import LANE_KEY, VOCABULARY_KEY
from serin_mesh.errors import Reason

from serin_control.instance import Service
from serin_control.xds.routing import Split, Target

NO_TIMEOUT = timedelta(0)
"""A token stream lasts as long as its deadline says; Envoy's default of 15 s would cut it."""

STREAM_IDLE_TIMEOUT = timedelta(minutes=10)
"""Silence that ends a stream through Envoy: longer than any request may wait in a queue."""


def make_route_configuration(target: Target) -> route.RouteConfiguration:
    """The routes of one target, for `xds:///` clients."""
    host = route.VirtualHost(name=target.name, domains=["*"], routes=target_routes(target))
    return route.RouteConfiguration(name=target.name, virtual_hosts=[host])


def target_routes(target: Target) -> list[route.Route]:
    """The routes of one target, in the order they are tried."""
    pinned = [
        route.Route(match=_match(LANE_KEY, lane), route=_forward(target.service, ((cluster, 1),)))
        for lane, cluster in target.pinned
    ]
    by_vocabulary = [
        route.Route(match=_match(VOCABULARY_KEY, vocabulary), route=_forward(target.service, split))
        for vocabulary, split in target.by_vocabulary
    ]
    gone = route.Route(
        match=route.RouteMatch(prefix="/", headers=[route.HeaderMatcher(name=LANE_KEY, present_match=True)]),
        direct_response=refusal("LANE_GONE: the lane that the call names is not served any more"),
    )
    rest = split_route(route.RouteMatch(prefix="/"), target)
    return [*pinned, *([gone] if target.service in _LANED else []), *by_vocabulary, rest]


def split_route(match: route.RouteMatch, target: Target) -> route.Route:
    """Forward by weight, or refuse where nothing answers the target."""
    if not target.split:
        return route.Route(match=match, direct_response=refusal(f"NOT_READY: nothing serves {target.name} yet"))
    return route.Route(match=match, route=_forward(target.service, target.split))


def refusal(message: str, status: int = 503) -> route.DirectResponseAction:
    """Answer instead of forwarding; gRPC callers see UNAVAILABLE for 503."""
    return route.DirectResponseAction(status=status, body=core.DataSource(inline_string=message))


_UNTOUCHED = [
    route.HeaderMatcher(name="serin-reason", string_match=matcher.StringMatcher(exact=reason))
    for reason in (Reason.NOT_READY, Reason.AUTH_UNAVAILABLE)
]
_ELSEWHERE = route.RetryPolicyRetryHostPredicate(
    name="envoy.retry_host_predicates.previous_hosts", typed_config=Any.pack(previous_hosts.PreviousHostsPredicate())
)
_NUM_LOOKS = 20
"""How often a retry looks for an endpoint that it has not tried: of two, a dead one is idle and drawn 3 times in 4."""

_TRIES_OF_A_VERSION = 2
"""A call is tried so often at the version that was drawn, and then at what stands in for it: each may have one endpoint
that is dead and not known to be."""

_THEN_STAND_INS = route.RetryPolicyRetryPriority(
    name="envoy.retry_priorities.previous_priorities",
    typed_config=Any.pack(previous_priorities.PreviousPrioritiesConfig(update_frequency=_TRIES_OF_A_VERSION)),
)

_LANED = (Service.TOKENIZER, Service.WORKER)


def _match(header: str, value: str) -> route.RouteMatch:
    exact = route.HeaderMatcher(name=header, string_match=matcher.StringMatcher(exact=value))
    return route.RouteMatch(prefix="/", headers=[exact])


def _forward(service: Service, split: Split) -> route.RouteAction:
    if len(split) == 1:
        return route.RouteAction(
            cluster=split[0][0],
            timeout=NO_TIMEOUT,
            idle_timeout=STREAM_IDLE_TIMEOUT,
            retry_policy=_retries(service),
        )
    weights = [route.WeightedClusterClusterWeight(name=cluster, weight=weight) for cluster, weight in split]
    return route.RouteAction(
        weighted_clusters=route.WeightedCluster(clusters=weights),
        timeout=NO_TIMEOUT,
        idle_timeout=STREAM_IDLE_TIMEOUT,
        retry_policy=_retries(service),
    )


def _retries(service: Service) -> route.RetryPolicy | None:
    """Retries before the first byte of an answer, where a repeated call does no harm.

    None for workers: a request that kills its worker must not be carried to the next one by the transport. None for
    the cache: it answers at once or not at all. A gateway's own refusal is repeated only where it says that nothing
    was done: after any other it has tried what could be tried, and the request itself may be what is wrong. Half of
    its tries go to what stands in for the version that was drawn, if anything does.
    """
    if service is Service.TOKENIZER:
        num_retries, retry_on = 2, "unavailable,connect-failure,refused-stream"
    elif service is Service.GATEWAY:
        num_retries = 2 * _TRIES_OF_A_VERSION - 1
        retry_on = "connect-failure,refused-stream,reset-before-request,retriable-headers"
    else:
        return None
    back_off = route.RetryPolicyRetryBackOff(
        base_interval=timedelta(milliseconds=25), max_interval=timedelta(milliseconds=250)
    )
    return route.RetryPolicy(
        retry_on=retry_on,
        num_retries=num_retries,
        retry_back_off=back_off,
        retriable_headers=_UNTOUCHED if service is Service.GATEWAY else [],
        retry_priority=_THEN_STAND_INS if service is Service.GATEWAY else None,
        retry_host_predicate=[_ELSEWHERE],
        host_selection_retry_max_attempts=_NUM_LOOKS,
    )
