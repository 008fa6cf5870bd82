"""What was used and what it costs: prices, billing lines, sums. Money is an integer of nano-units, never a float."""
