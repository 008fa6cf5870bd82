"""Models kept by name and version: what was pushed is what is served, or it is refused."""
