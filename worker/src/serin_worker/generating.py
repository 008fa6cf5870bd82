"""One request while the engine generates for it: what the engine says, as events of the contract.

Notes on the way what was sent, and how it ended. Knows nothing about the calls that events travel on.
"""

from collections.abc import Callable, Iterator, Sequence

from serin.worker.v1 import worker_pb2
from serin_mesh.errors import MeshError, Reason

from serin_worker.accounts import Account
from serin_worker.errors import WorkerError
from serin_worker.failures import to_mesh
from serin_worker.outputs import ChoiceFinished, Delta, Failed, Output, Started, Summary
from serin_worker.request import GenerationRequest
from serin_worker.serving import Serving
from serin_worker.stream import OutputStream
from serin_worker.wire import delta_response, finished_response, started_response, summary_response

OnEnd = Callable[[WorkerError | None, Summary | None, str, int], None]
"""Told how a request ended: an error, or the summary, why its last choice ended, and how many it had."""


class Generating:
    """A request that was given to the engine.

    Args:
        stream: what the engine says.
        generation: what was asked.
        serving: who works on it.
        account: where is counted what is sent.
        on_end: told how it ended.
    """

    def __init__(
        self,
        stream: OutputStream,
        generation: GenerationRequest,
        serving: Serving,
        account: Account,
        on_end: OnEnd,
    ) -> None:
        self.stream = stream
        self._generation = generation
        self._serving = serving
        self._account = account
        self._on_end = on_end
        self._reason = "stop"

    def listen(self, on_arrival: Callable[[], None]) -> None:
        """Have this called whenever there is something to take."""
        self.stream.listen(on_arrival)

    def take(self) -> Iterator[worker_pb2.GenerateResponse]:
        """What there is now; as :meth:`responses`."""
        return self.responses(self.stream.take())

    def responses(self, outputs: Sequence[Output]) -> Iterator[worker_pb2.GenerateResponse]:
        """What the engine said, as events.

        Raises:
            MeshError: it failed; the events before came before.
        """
        for output in outputs:
            if isinstance(output, ChoiceFinished):
                self._reason = output.reason
            elif isinstance(output, Summary):
                self._on_end(None, output, self._reason, self._generation.num_choices)
            elif isinstance(output, Failed):
                self._on_end(output.error, None, self._reason, self._generation.num_choices)
            self._account.note(output)
            yield self._response(output)

    def _response(self, output: Output) -> worker_pb2.GenerateResponse:
        match output:
            case Delta():
                return delta_response(output)
            case Started():
                about = self._serving.about
                return started_response(
                    output,
                    worker=self._serving.instance,
                    seed=self._generation.sampling.seed,
                    kv_digest=about.kv_digest,
                    numerics_class=about.numerics_class,
                )
            case ChoiceFinished():
                return finished_response(output)
            case Summary():
                return summary_response(output)
            case Failed(error):
                raise to_mesh(error)
            case _:
                raise MeshError(Reason.INTERNAL, "the engine answered a generation with a score")
