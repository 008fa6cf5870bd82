"""One growing answer: ids in, certain text out, until a stop string or the end.

Joins a text stream with a stop finder and counts what was consumed and delivered, so that another replica can go on
exactly where this one was. Knows nothing about gRPC or other sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serin_tokenizer_svc.errors import InputRefused
from serin_tokenizer_svc.stop_strings import StopFinder
from serin_tokenizer_svc.text_stream import TextStream


@dataclass(frozen=True, slots=True)
class StopFound:
    """A stop string, and the number of ids up to and with the one that completed it."""

    stop_string: str
    num_tokens: int


class GrowingSequence:
    """One answer that grows.

    Attributes:
        num_tokens: ids consumed.
        delivered_bytes: UTF-8 bytes of text given, or known to the caller before.
        stop: the stop string that ended it, if one did; nothing is consumed after that.
    """

    def __init__(
        self, stream: TextStream, finder: StopFinder | None, *, min_tokens: int = 0, delivered_bytes: int = 0
    ) -> None:
        self._stream = stream
        self._finder = finder
        self._min_tokens = min_tokens if finder else 0
        self._num_withheld = delivered_bytes
        self.num_tokens = 0
        self.delivered_bytes = delivered_bytes
        self.stop: StopFound | None = None

    def append(self, token_ids: Sequence[int]) -> str:
        """Consume ids; give the text that became certain and that the caller does not have."""
        if self.stop is not None:
            return ""
        if self._finder is None:
            self.num_tokens += len(token_ids)
            return self._deliver(self._stream.append(token_ids))
        num_free = min(len(token_ids), max(0, self._min_tokens - self.num_tokens))
        self.num_tokens += num_free
        certain = [self._stream.append(token_ids[:num_free])] if num_free else []
        for token_id in token_ids[num_free:]:
            self.num_tokens += 1
            text, stop = self._finder.feed(self._stream.append((token_id,)))
            certain.append(text)
            if stop is not None:
                self.stop = StopFound(stop, self.num_tokens)
                break
        return self._deliver("".join(certain))

    def close(self) -> str:
        """End the sequence; give what was held back.

        Raises:
            InputRefused: the caller claims to have more text than there is.
        """
        text = ""
        if self.stop is None:
            text = self._stream.flush()
            if self._finder is not None:
                text, stop = self._finder.feed(text)
                if stop is None:
                    text += self._finder.flush()
                else:
                    self.stop = StopFound(stop, self.num_tokens)
        text = self._deliver(text)
        if self._num_withheld:
            raise InputRefused(
                f"the text has {self._num_withheld} bytes less than the caller says to have", "delivered_byte_count"
            )
        return text

    def _deliver(self, text: str) -> str:
        if not text:
            return text
        data = text.encode()
        if self._num_withheld:
            num_cut = min(self._num_withheld, len(data))
            self._num_withheld -= num_cut
            data = data[num_cut:]
            try:
                text = data.decode()
            except UnicodeDecodeError:
                raise InputRefused("the byte count ends inside a character", "delivered_byte_count") from None
        self.delivered_bytes += len(data)
        return text
