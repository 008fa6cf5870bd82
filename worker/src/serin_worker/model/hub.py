"""Where a model's files are: a folder, or a repository of a model hub that is fetched once.

Only configuration, tokenizer and safetensors are ever fetched.
"""

import re
from pathlib import Path

from serin_worker.errors import ModelRefused

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def locate(model: str) -> Path:
    """The folder of a model given as a path or as a hub id ``organization/name``.

    Raises:
        ModelRefused: there is no such folder, and it is not a repository that can be fetched.
    """
    folder = Path(model).expanduser()
    if folder.exists():
        return folder
    if not _HUB_ID.fullmatch(model):
        raise ModelRefused("no such folder, and not a hub id like 'organization/name'", model)
    from huggingface_hub import snapshot_download  # only when a hub is really asked
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(_PATTERNS)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelRefused(f"no such folder, and the hub did not give it: {error}", model) from error
