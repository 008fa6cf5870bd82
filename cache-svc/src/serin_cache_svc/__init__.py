"""What was computed before: stored answers, and which worker holds which prefix."""
