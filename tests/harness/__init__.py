"""What tests of the whole mesh stand on: models to serve, meshes of real processes, clients of theirs."""
