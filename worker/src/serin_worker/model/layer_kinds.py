"""Which decoder layers are known to do nothing but attend, feed forward, normalise and add.

What acts on large numbers alone, no comparison of a few random rows would find.
"""

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Models whose layers are."""
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
"""What is in them."""
