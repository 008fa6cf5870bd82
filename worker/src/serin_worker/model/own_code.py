"""A model's own code, run before it serves: what it raises says that the model is not served, by its type.

Some architectures look into layers that have been replaced, or contradict themselves where config.json does not show
it. Knows nothing about what is run.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from serin_worker.errors import ModelRefused, WorkerError
from serin_worker.model.memory import is_out_of_memory


@contextmanager
def own_code_of(model: PreTrainedModel) -> Iterator[None]:
    """Run the model inside.

    Raises:
        ModelRefused: it failed, for another cause than memory; one line with its type, the error and what is supported.
    """
    try:
        yield
    except WorkerError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelRefused(
            f"model_type {model.config.model_type!r} ({type(model).__name__}) does not run here: {said}; supported: "
            "causal language models whose layers all attend through transformers' attention interface, and whose code "
            "calls its linear layers without looking into them"
        ) from error
