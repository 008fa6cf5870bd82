"""How traffic finds the versions it should: xDS for `xds:///` clients and for Envoy.

``routing`` draws what should be routed where, ``resources`` makes messages of it, ``snapshot`` encodes and versions
them, ``publisher`` decides when a snapshot is published, ``server`` speaks with clients. `envoy_data_plane` is
imported in this package only.
"""

import warnings

with warnings.catch_warnings():
    # envoy-data-plane 2.2 declares validators in a form that pydantic 2.12 deprecates, and says so at its first import.
    warnings.simplefilter("ignore", DeprecationWarning)
    import serin_control.xds.server  # noqa: F401 - with all that makes messages
