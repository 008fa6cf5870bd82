"""The front door of a Serin mesh: REST and gRPC in, the life of a request in between.

Start reading at :mod:`serin_gateway.pipeline`.
"""
