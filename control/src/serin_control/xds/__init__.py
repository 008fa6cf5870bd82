"""How traffic finds the versions it should: xDS for `xds:///` clients and for Envoy.

``routing`` draws what should be routed where, ``resources`` makes messages of it, ``snapshot`` encodes and versions
them, ``publisher`` decides when a snapshot is published, ``server`` speaks with clients. `envoy_data_plane` is
imported in this package only.
"""
