"""From logits to tokens: processors, filters, and a draw that is a pure function of its name."""
