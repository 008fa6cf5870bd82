"""Text to token ids and back, for one tokenizer version."""
