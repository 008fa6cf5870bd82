"""The demo family's tokenizer: one id per byte, a few special tokens, a ChatML template. Made by code, never trained.

Every text of any script can be encoded, and decoding gives it back. All demo models share this vocabulary, so every
version speaks the same ids. Knows nothing about models or questions.
"""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

NUM_BYTES = 256
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
"""Tokens that decoding leaves out."""
MARKUP_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
"""Single ids that stay visible when decoded; those for thinking are for later versions."""

TOKEN_IDS = {text: NUM_BYTES + place for place, text in enumerate(SPECIAL_TOKENS + MARKUP_TOKENS)}
VOCABULARY_SIZE = NUM_BYTES + len(TOKEN_IDS)
MAX_POSITIONS = 2048

CHAT_TEMPLATE = """\
{%- macro text_of(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- elif content -%}
    {%- for part in content -%}{%- if part.type == 'text' -%}{{- part.text -}}{%- endif -%}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- set first_is_system = messages and messages[0].role in ('system', 'developer') -%}
{%- if tools or first_is_system -%}
  {{- '<|im_start|>system\\n' -}}
  {%- if first_is_system -%}{{- text_of(messages[0].content) -}}{%- endif -%}
  {%- if tools -%}
    {%- if first_is_system -%}{{- '\\n' -}}{%- endif -%}
    {{- 'Tools: ' -}}
    {%- for tool in tools -%}
      {%- set function = tool.function if tool.function is defined else tool -%}
      {%- set schema = function.parameters if function.parameters is mapping else {} -%}
      {%- set properties = schema.properties if schema.properties is mapping else {} -%}
      {{- function.name + '(' + (properties.keys() | join(', ')) + ')' + ('' if loop.last else ', ') -}}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role in ('system', 'developer') -%}
    {%- if not loop.first -%}
      {{- '<|im_start|>system\\n' + text_of(message.content) + '<|im_end|>\\n' -}}
    {%- endif -%}
  {%- elif message.role == 'user' -%}
    {{- '<|im_start|>user\\n' + text_of(message.content) + '<|im_end|>\\n' -}}
  {%- elif message.role == 'assistant' -%}
    {{- '<|im_start|>assistant\\n' + text_of(message.content) -}}
    {%- for call in message.tool_calls or [] -%}
      {%- set function = call.function if call.function is defined else call -%}
      {%- set arguments = function.arguments if function.arguments is string else function.arguments | tojson -%}
      {%- if message.content or not loop.first -%}{{- '\\n' -}}{%- endif -%}
      {{- '<tool_call>\\n{"name": "' + function.name + '", "arguments": ' + arguments + '}\\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
  {%- elif message.role == 'tool' -%}
    {{- '<|im_start|>user\\n<tool_response>\\n' + text_of(message.content) + '\\n</tool_response><|im_end|>\\n' -}}
  {%- else -%}
    {{- raise_exception('role ' + message.role + ' is not known; use system, user, assistant or tool') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; id ``b`` below 256 is the byte ``b``."""
    tokenizer = Tokenizer(models.BPE(vocab=_byte_letters(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in MARKUP_TOKENS])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def _byte_letters() -> dict[str, int]:
    """The printable letter that byte-level tokenizers write for each byte (GPT-2's table), to the byte's value.

    Printable Latin-1 stands for itself; the other bytes, in order, take the letters from U+0100 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(NUM_BYTES) if byte not in printable]
    letters = {chr(byte): byte for byte in printable} | {chr(NUM_BYTES + n): byte for n, byte in enumerate(others)}
    return dict(sorted(letters.items(), key=lambda pair: pair[1]))
