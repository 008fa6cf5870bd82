"""The services behind the gateway, called over gRPC: each module carries out one seam. Decides nothing by itself."""
