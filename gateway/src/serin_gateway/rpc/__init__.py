"""The gRPC door: `serin.inference.v1`, translated to asks and back. Decides nothing by itself."""
