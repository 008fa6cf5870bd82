"""The control plane's gRPC services: they translate between protobuf and the room's own types, and decide nothing."""
