"""What choices may say: grammars over bytes become masks over ids, beside the model."""
