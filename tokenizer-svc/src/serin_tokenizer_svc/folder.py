"""A model folder as a tokenizer sees it: files, chat templates, named special tokens, end ids, digest.

Reads and checks; knows nothing about encoding. A name that is no folder is looked up on the model hub.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serin_mesh.identity import digest_bytes

from serin_tokenizer_svc.errors import FolderRefused

SPECIAL_TOKEN_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""Named special tokens; templates read them as variables of these names."""

TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FOLDER = "additional_chat_templates"
HUB_PATTERNS = ["*.json", "*.jinja", f"{TEMPLATE_FOLDER}/*"]
TEMPLATE_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder says about text.

    Attributes:
        path: the folder.
        tokenizer_json: content of ``tokenizer.json``.
        templates: chat templates by name; ``default`` and perhaps ``tool_use``; empty if there are none.
        special_tokens: named special tokens, for example ``{"eos_token": "</s>"}``.
        end_token_ids: ids that end an answer as the model's generation configuration says; empty if it does not.
        digest: of every file that decides how text becomes ids or back.
    """

    path: Path
    tokenizer_json: bytes
    templates: Mapping[str, str]
    special_tokens: Mapping[str, str]
    end_token_ids: tuple[int, ...]
    digest: str


def check_name(name: str) -> None:
    """Refuse at once what needs no download to be refused.

    Raises:
        FolderRefused: it is no folder and cannot be the name of a hub model, or the folder lacks its main file.
    """
    path = Path(name)
    if path.is_dir():
        read_folder(path)
    elif path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise FolderRefused(f"{name}: no such folder")


def find_folder(name: str) -> Path:
    """The folder of this name, or that of the hub model of this name, its text files downloaded.

    Raises:
        FolderRefused: it is neither.
    """
    check_name(name)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise FolderRefused(f"{name}: no such folder, and the model hub did not give it: {why}") from error


def read_folder(path: Path) -> ModelFolder:
    """Read and check a model folder.

    Raises:
        FolderRefused: a file is missing or damaged; the message names it.
    """
    tokenizer_json = _read(path / "tokenizer.json")
    if tokenizer_json is None:
        raise FolderRefused(f"{path / 'tokenizer.json'}: not found; a model folder needs its tokenizer.json")
    config = _read_object(path / "tokenizer_config.json")
    if "auto_map" in config:
        raise FolderRefused(
            f"{path / 'tokenizer_config.json'}: asks to run its own code (auto_map), which is never done"
        )
    named = {**_read_object(path / "special_tokens_map.json"), **config}
    return ModelFolder(
        path=path,
        tokenizer_json=tokenizer_json,
        templates=_templates(path, config),
        special_tokens=_special_tokens(path, named),
        end_token_ids=_end_token_ids(path),
        digest=_digest(path),
    )


def _templates(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    source = _read(path / TEMPLATE_FILE)
    if source is not None:
        found["default"] = _text(path / TEMPLATE_FILE, source)
    for file in sorted((path / TEMPLATE_FOLDER).glob("*.jinja")):
        found[file.stem] = _text(file, file.read_bytes())
    if found:
        return found
    value = config.get("chat_template")
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    try:
        return {str(entry["name"]): str(entry["template"]) for entry in value}
    except (TypeError, KeyError) as error:
        raise FolderRefused(
            f"{path / 'tokenizer_config.json'}: chat_template: accepted: a text, or a list of name and template"
        ) from error


def _special_tokens(path: Path, named: Mapping[str, Any]) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for name in SPECIAL_TOKEN_NAMES:
        value = named.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if value is None:
            continue
        if not isinstance(value, str):
            raise FolderRefused(f"{path / 'tokenizer_config.json'}: {name}: {value!r}: accepted: a text")
        tokens[name] = value
    return tokens


def _end_token_ids(path: Path) -> tuple[int, ...]:
    for file in ("generation_config.json", "config.json"):
        value = _read_object(path / file).get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(token_id, int) and token_id >= 0 for token_id in ids):
            raise FolderRefused(f"{path / file}: eos_token_id: {value!r}: accepted: a token id, or a list of them")
        return tuple(ids)
    return ()


def _digest(path: Path) -> str:
    files = [
        path / name
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "generation_config.json",
            TEMPLATE_FILE,
        )
    ]
    files += sorted((path / TEMPLATE_FOLDER).glob("*.jinja"))
    parts: list[bytes] = []
    for file in files:
        content = _read(file)
        if content is not None:
            parts += [str(file.relative_to(path)).encode(), content]
    return digest_bytes(*parts).hex()


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FolderRefused(f"{file}: {error.strerror}") from error


def _read_object(file: Path) -> dict[str, Any]:
    content = _read(file)
    if content is None:
        return {}
    try:
        value = json.loads(content)
    except ValueError as error:
        raise FolderRefused(f"{file}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FolderRefused(f"{file}: not a JSON object")
    return value


def _text(file: Path, content: bytes) -> str:
    if len(content) > TEMPLATE_LIMIT_BYTES:
        raise FolderRefused(f"{file}: {len(content)} bytes; at most {TEMPLATE_LIMIT_BYTES} are accepted")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise FolderRefused(f"{file}: not UTF-8: {error}") from error
