"""Load of all workers as they report it themselves (ORCA out of band, `xds.service.orca.v3`).

Other gateways place work too; what they placed shows here. A worker that reports nothing has an unknown load, which is
no error. Each report is also a sign of life, and tokenizers are asked for nothing else. Knows nothing about placing.
"""

import asyncio
import contextlib
import contextvars
import math
import time
from dataclasses import dataclass

from serin_mesh.channels import ChannelSettings, connect
from serin_mesh.errors import MeshError
from xds.service.orca.v3 import orca_pb2, orca_pb2_grpc

from serin_gateway.catalog import CatalogSource
from serin_gateway.upstream.pulses import TICK_S, Pulses

REPORT_EVERY_S = TICK_S
BELIEVED_S = 3.0
"""A report older than this says nothing."""
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 5.0
LOOK_EVERY_S = 5.0


class ReportedLoads:
    """The last report of each worker and tokenizer of the catalog; `watch` is a task of whoever owns it.

    Args:
        settings: for channels.
        catalog: names them.
        pulses: told of each report.
    """

    def __init__(self, settings: ChannelSettings, catalog: CatalogSource, pulses: Pulses | None = None) -> None:
        self._settings = settings
        self._catalog = catalog
        self._pulses = pulses or Pulses()
        self._reports: dict[str, _Report] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}

    def num_sequences(self, endpoint: str) -> int:
        """Sequences that run or wait on a worker; 0: none, or unknown."""
        report = self._believed(endpoint)
        return report.num_running + report.num_waiting

    def num_waiting(self, endpoint: str) -> int:
        """Sequences that wait on a worker; 0: none, or unknown."""
        return self._believed(endpoint).num_waiting

    def is_silent(self, endpoint: str) -> bool:
        """Whether a worker or tokenizer that used to report says nothing any more."""
        return self._pulses.is_silent(endpoint)

    async def watch(self) -> None:
        """Follow the workers and tokenizers of the catalog, for as long as this task lives."""
        try:
            while True:
                self.follow(self._endpoints())
                await self._catalog.changed(LOOK_EVERY_S)
        finally:
            for endpoint in list(self._watching):
                self._drop(endpoint)

    def follow(self, endpoints: dict[str, str]) -> None:
        """Listen to these endpoints, given with their services' names, and to others only while they do our work.

        One that drains, or that the control plane no longer trusts, leaves the catalog before its streams end.
        """
        for endpoint in self._watching.keys() - endpoints.keys():
            if not self._pulses.is_awaited(endpoint):
                self._drop(endpoint)
        for endpoint in endpoints.keys() - self._watching.keys():
            listening = self._listen(endpoint, endpoints[endpoint])
            self._watching[endpoint] = asyncio.create_task(listening, context=contextvars.Context())

    def _drop(self, endpoint: str) -> None:
        self._watching.pop(endpoint).cancel()
        self._reports.pop(endpoint, None)
        self._pulses.gone(endpoint)

    def _believed(self, endpoint: str) -> "_Report":
        report = self._reports.get(endpoint, _SILENCE)
        return report if time.monotonic() - report.at < BELIEVED_S else _SILENCE

    def _endpoints(self) -> dict[str, str]:
        try:
            models = self._catalog.current().models
        except MeshError:
            return {}
        endpoints: dict[str, str] = {}
        for model in models:
            for lane in model.lanes:
                endpoints |= {worker.endpoint: f"worker.{model.name}" for worker in lane.workers}
                endpoints |= dict.fromkeys(lane.tokenizers, f"tokenizer.{model.name}")
        return endpoints

    async def _listen(self, endpoint: str, service: str) -> None:
        request = orca_pb2.OrcaLoadReportRequest()
        request.report_interval.FromMilliseconds(round(REPORT_EVERY_S * 1000))
        pause_s, kind = FIRST_PAUSE_S, service.partition(".")[0]
        async with connect(endpoint, self._settings, echo_lane=False, service=service) as channel:
            while True:
                with contextlib.suppress(MeshError):
                    async for report in orca_pb2_grpc.OpenRcaServiceStub(channel).StreamCoreMetrics(request):
                        figures = report.named_metrics
                        self._reports[endpoint] = _Report(
                            time.monotonic(), round(figures.get("running", 0.0)), round(figures.get("waiting", 0.0))
                        )
                        self._pulses.heard(endpoint, kind)
                        pause_s = FIRST_PAUSE_S
                self._pulses.unheard(endpoint)
                await asyncio.sleep(pause_s)
                pause_s = min(MAX_PAUSE_S, 2 * pause_s)


@dataclass(frozen=True, slots=True)
class _Report:
    at: float
    num_running: int
    num_waiting: int


_SILENCE = _Report(-math.inf, 0, 0)
