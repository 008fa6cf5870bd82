"""A model folder, from its files on disk to a forward pass over paged attention."""
