"""Where a model's traffic goes back to, and whether anything is there to take it. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from shlex import quote

from serin_control.errors import RolloutInvalid, VersionGone
from serin_control.instance import LANE_SERVICES, MEMBER_SERVICES, Instance, Service, State
from serin_control.lanes import WEIGHT_SUM, Lane, Versions, form_lanes, named, with_shared, with_version
from serin_control.plan import ModelPlan, Share
from serin_control.rollouts.rollout import Rollout
from serin_control.rollouts.rollout import State as RolloutState
from serin_control.rollouts.sight import activity
from serin_control.rollouts.standing import Standing


def target(
    model: str,
    to_version: str,
    standing: Standing,
    now: tuple[Share, ...],
    instances: Sequence[Instance],
    declared: Collection[tuple[Service, str]] = (),
    shared: Mapping[Service, str] | None = None,
) -> tuple[Share, ...]:
    """Shares to go back to; those of ``now`` where the traffic is there already.

    ``to_version`` is a version of any service that distinguishes them; empty: what was before. ``declared`` is what
    the configuration has run; ``shared`` are the versions of what lanes share unless they name one of their own.

    Raises:
        RolloutInvalid: there is nothing to go back to.
        VersionGone: it runs no more; the message says what brings it back.
    """
    if not to_version:
        if not standing.previous:
            raise RolloutInvalid(_nowhere(model, standing, now[0].versions))
        return _living(model, standing.previous, instances, declared)
    known = list(_known(to_version, standing, now[0].versions, shared or {}))
    if not known and len(now) == 1 and any(version == to_version for _, version in now[0].versions):
        return now
    thinkable = _thinkable(to_version, now[0].versions)
    if known and len(now) == 1:  # a part of now that has this version's name is not what is meant
        thinkable = (shares for shares in thinkable if shares[0].versions != now[0].versions)
    candidates = [*known, *thinkable]
    for shares in candidates:
        if is_alive(model, shares[0].versions, instances):
            return shares
    return _living(model, min(candidates, key=lambda s: len(_gone(model, s, instances))), instances, declared)


def check_back_on(
    rollout: Rollout, instances: Sequence[Instance], declared: Collection[tuple[Service, str]] = ()
) -> None:
    """See that what a rollout that was taken back moved from takes the traffic that is its own again.

    Raises:
        VersionGone: it does not; the message says who answers until then and what brings it back.
    """
    if any(is_alive(rollout.model, share.versions, instances) for share in rollout.arms.stable):
        return
    gone = _gone(rollout.model, rollout.arms.stable, instances) or list(rollout.arms.stable[0].versions)
    raise VersionGone(
        f"{rollout.id} was taken back, but nothing of {named(tuple(gone))} of {rollout.model} takes calls: all traffic "
        f"goes there as soon as something does, and until then to whatever else of it runs; "
        f"{_ways_back(rollout.model, gone, instances, declared)}"
    )


def has_served(
    shares: tuple[Share, ...], standing: Standing, past: Iterable[Rollout], shared: Mapping[Service, str]
) -> bool:
    """Whether these shares' first versions had the traffic before: declared, kept, old in a rollout, or promoted."""
    served = [share.versions for share in (*standing.declared, *standing.previous)]
    served += [kept.versions for kept in standing.kept if kept.good]
    for rollout in past:
        served += [share.versions for share in rollout.arms.stable]
        served += [rollout.arms.canary] if rollout.state is RolloutState.PROMOTED else []
    wanted = set(with_shared(shares[0].versions, shared))
    return any(set(with_shared(versions, shared)) == wanted for versions in served)


def _nowhere(model: str, standing: Standing, now: Versions) -> str:
    left = [kept.versions[-1] for kept in standing.kept if kept.good]
    if standing == Standing(standing.model, standing.declared):
        return f"model: {model} has not moved: there is nothing to go back to"
    if not left:
        return (
            f"model: no other version that had the traffic of {model} is kept: there is nothing to go back to; `serin "
            f"rollback --model {model} --to VERSION{_flag(now[-1][0])}` gives it to any that runs"
        )
    service, version = left[-1]
    return (
        f"model: {model} went back already, nothing was done; {service} {version}, which had its traffic before, is "
        f"kept: `serin rollback --model {model} --to {quote(version)}{_flag(service)}` returns to it"
    )


def lane_of(model: str, versions: Versions, instances: Iterable[Instance]) -> Lane | None:
    """The lane of a set of versions, if it would answer a new request."""
    lanes = form_lanes(ModelPlan(model, shares=(Share(versions, 1),)), instances, {}).lanes
    return lanes[0] if lanes and lanes[0].takes_calls else None


def is_alive(model: str, versions: Versions, instances: Sequence[Instance]) -> bool:
    """Whether a new call would be answered."""
    if all(service in MEMBER_SERVICES for service, _ in versions):
        return lane_of(model, versions, instances) is not None
    return not _gone(model, (Share(versions, 1),), instances)


def _known(
    to_version: str, standing: Standing, now: Versions, shared: Mapping[Service, str]
) -> Iterator[tuple[Share, ...]]:
    """Sets of the past that a version may mean: what was before, then what is kept."""
    past = [standing.previous] if standing.previous else []
    past += [(Share(kept.versions, WEIGHT_SUM),) for kept in reversed(standing.kept) if kept.good]
    for shares in past:
        before = with_shared(shares[0].versions, shared if set(dict(now)) & set(shared) else {})
        if any(pair not in now and pair[1] == to_version for pair in before):
            yield shares


def _thinkable(to_version: str, now: Versions) -> Iterator[tuple[Share, ...]]:
    """Sets that differ from now by a version: all of it, or one service. A cache goes back to what is known only."""
    services = [service for service, _ in now if service is not Service.CACHE]
    yield (Share(with_version(now, services, to_version), WEIGHT_SUM),)
    for moved in reversed(services):
        yield (Share(with_version(now, (moved,), to_version), WEIGHT_SUM),)


def _living(
    model: str,
    shares: tuple[Share, ...],
    instances: Sequence[Instance],
    declared: Collection[tuple[Service, str]],
) -> tuple[Share, ...]:
    if is_alive(model, shares[0].versions, instances):
        return shares
    gone = _gone(model, shares, instances) or list(shares[0].versions)
    raise VersionGone(
        f"nothing of {named(tuple(gone))} of {model} takes calls any more: traffic stays where it is; "
        f"{_ways_back(model, gone, instances, declared)}, "
        f"then `serin rollback --model {model} --to {quote(gone[-1][1])}{_flag(gone[-1][0])}`"
    )


def _ways_back(
    model: str,
    gone: Iterable[tuple[Service, str]],
    instances: Sequence[Instance],
    declared: Collection[tuple[Service, str]],
) -> str:
    return " and ".join(_way_back(model, pair, instances, pair in declared) for pair in gone)


def _flag(service: Service) -> str:
    return "" if service in MEMBER_SERVICES else f" --service {service}"


def _way_back(model: str, gone: tuple[Service, str], instances: Iterable[Instance], is_declared: bool) -> str:
    """What makes a member take calls again: patience where it starts or will be started, else a command."""
    service, version = gone
    comes = next((i for i in _of(model, gone, instances) if i.status.state is State.STARTING), None)
    until = f"wait until `serin status` shows {service} {version} ready"
    if comes is not None:
        return f"{until} ({activity(comes)})"
    whose = f" --model {model}" if service in LANE_SERVICES else ""
    command = f"serin add {service}{whose} --version {quote(version)}"
    if is_declared:
        return f"{until}: serin.yaml declares it, so it is started again (after a `serin remove`: `{command}`)"
    return f"`{command} {'--path' if whose else '--code'} DIR` brings it back"


def _gone(model: str, shares: tuple[Share, ...], instances: Iterable[Instance]) -> list[tuple[Service, str]]:
    """Members that take no calls; another model's workers and tokenizers are none of them."""
    held = tuple(instances)
    return [pair for pair in shares[0].versions if not any(one.takes_calls for one in _of(model, pair, held))]


def _of(model: str, pair: tuple[Service, str], instances: Iterable[Instance]) -> list[Instance]:
    """Instances of a version of a service that serve a model."""
    mine = [i for i in instances if i.registration.model in (model, "")]
    return [i for i in mine if (i.registration.service, i.registration.version) == pair]
