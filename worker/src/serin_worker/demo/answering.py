"""Asking a model many questions at once: greedy answers, by transformers alone.

The obvious way to run a model, so that figures here say something about the model and nothing about our engine.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from serin_worker.demo.item import Item

BATCH_SIZE = 100
SPARE_TOKENS = 4
"""How much longer than the longest right answer of its batch an answer may grow before it is cut."""


def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], batch_size: int = BATCH_SIZE
) -> list[str]:
    """The model's greedy answer to each item, in the items' order, without its end of turn.

    An answer longer than every right one of its batch comes back cut and marked with an ellipsis: it cannot be right.
    """
    prompts = [_prompt(tokenizer, item) for item in items]
    by_length = sorted(range(len(items)), key=lambda place: (items[place].kind, len(prompts[place])))
    found: dict[int, str] = {}
    for start in range(0, len(by_length), batch_size):
        places = by_length[start : start + batch_size]
        longest = max(len(items[place].answer.encode()) for place in places)
        made = _batch(model, tokenizer, [prompts[place] for place in places], longest + SPARE_TOKENS)
        found |= zip(places, made, strict=True)
    return [found[place] for place in range(len(items))]


def _prompt(tokenizer: PreTrainedTokenizerBase, item: Item) -> list[int]:
    messages: list[Any] = list(item.messages)
    tools: list[Any] | None = list(item.tools) or None
    ids: Any = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, return_dict=False)
    return list(ids)


@torch.inference_mode()
def _batch(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], max_new_tokens: int) -> list[str]:
    length = max(map(len, prompts))
    padding = model.generation_config.pad_token_id
    ids = torch.tensor([[padding] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    made = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=False,
        max_new_tokens=max_new_tokens,
    ).cpu()
    texts: list[str] = tokenizer.batch_decode(made[:, length:], skip_special_tokens=True)
    ends = torch.isin(made[:, length:], torch.tensor(model.generation_config.eos_token_id)).any(dim=1).tolist()
    return [text if ended else text + "…" for text, ended in zip(texts, ends, strict=True)]
