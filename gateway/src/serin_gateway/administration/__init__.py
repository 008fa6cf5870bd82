"""What administrators do: keys, projects, organizations, usage, audit. The REST door and the command line share it."""
