"""How a resource says that what it names comes by the same stream."""

from envoy_data_plane.envoy.config.core import v3 as core

ADS = core.ConfigSource(ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3)
