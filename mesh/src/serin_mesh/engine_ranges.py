"""What an engine can be told, as numbers: `serin.yaml` accepts what a worker's flags do, and says so earlier.

Knows nothing about either's way of reading them.
"""

MAX_SEQUENCES = 4096
"""Most sequences at once."""
DEFAULT_SEQUENCES = 64
"""As many, where nothing is said."""
MAX_THREADS = 1024
"""Most threads of CPU kernels."""
MAX_COUNT = 2**31 - 1
"""Most of whatever else is counted: blocks, tokens."""
BLOCK_TOKENS = 16
"""Tokens in a KV block, where nothing else is said; blocks are multiples of it."""
SHORT_REQUEST_TOKENS = 128
"""What a cache must hold at least, of a model with more positions: a sentence in a chat template, and its answer."""
