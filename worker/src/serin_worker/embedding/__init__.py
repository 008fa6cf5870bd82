"""Models that turn a text's ids into one vector: how they are described, loaded, batched and run."""
