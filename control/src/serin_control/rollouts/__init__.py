"""Rollouts: moving a model from one set of versions to another, step by step, and back.

The domain here knows no gRPC, no protobuf and no settings; what it needs of others comes as small protocols.
"""
