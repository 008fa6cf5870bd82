"""The engine room: ids in, ids out. The only room that imports torch."""
