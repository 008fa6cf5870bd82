"""Who changed what: a chain of entries in which nothing can be changed, removed or reordered unseen."""
