"""Registrations, statuses and instances in one line each."""

from dataclasses import replace

from serin_control.instance import Capacity, Digests, Instance, Registration, Service, State, Status

VOCABULARY = "aa" * 16
OTHER_VOCABULARY = "bb" * 16


def registration(
    name: str, service: Service = Service.WORKER, model: str = "small", version: str = "v1", port: int = 0, **rest
):
    """Who an instance is; without a port, one made of the name."""
    if service in (Service.CACHE, Service.GATEWAY):
        model = ""
    port = port or 20_000 + sum(name.encode()) * 7 % 9_973
    return Registration(name, service, model, version, f"127.0.0.1:{port}", **rest)


def ready(service: Service = Service.WORKER, artifact: str = "a1", vocabulary: str = VOCABULARY, **capacity) -> Status:
    """An instance that serves."""
    if service in (Service.CACHE, Service.GATEWAY):
        return Status(State.READY, 1.0)
    kv = "cc" + artifact if service is Service.WORKER else ""
    sizes = {"num_sequences": 8, "num_blocks": 64, "block_size": 16, "context_length": 512, **capacity}
    held = Capacity(**sizes) if service is Service.WORKER else Capacity()
    return Status(State.READY, 1.0, digests=Digests(artifact, vocabulary, kv, "cpu"), capacity=held)


def instance(
    name: str,
    service: Service = Service.WORKER,
    version: str = "v1",
    *,
    state: State = State.READY,
    suspect: bool = False,
    lost: bool = False,
    artifact: str = "",
    vocabulary: str = VOCABULARY,
    model: str = "small",
    port: int = 0,
    **rest,
) -> Instance:
    """An instance as the registry shows it; its artifact follows its service and version."""
    artifact = artifact or {"tokenizer": "70", "worker": "30"}.get(service, "") + version.encode().hex()
    status = replace(ready(service, artifact, vocabulary), state=state)
    return Instance(registration(name, service, model, version, port, **rest), status, 0.0, suspect, lost)


def pair(
    version: str, *, vocabulary: str = VOCABULARY, num_workers: int = 1, model: str = "small", **rest
) -> list[Instance]:
    """A tokenizer and workers of one version."""
    workers = [
        instance(f"w{n}-{model}-{version}", Service.WORKER, version, vocabulary=vocabulary, model=model, **rest)
        for n in range(num_workers)
    ]
    return [
        instance(f"t-{model}-{version}", Service.TOKENIZER, version, vocabulary=vocabulary, model=model, **rest),
        *workers,
    ]
