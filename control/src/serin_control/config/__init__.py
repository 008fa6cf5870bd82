"""`serin.yaml`: what a mesh is declared to be.

Reads, checks, compares and describes the declaration. Knows no gRPC, no state and no running instance.
"""

from serin_control.config.changes import diff
from serin_control.config.declaration import (
    CascadeConfig,
    GatewayConfig,
    GuardsConfig,
    IssuerConfig,
    LimitsConfig,
    MeshConfig,
    ModelConfig,
    PriceConfig,
    Release,
    ResponsesConfig,
    TenantConfig,
    VersionConfig,
)
from serin_control.config.problems import ConfigInvalid, Problem
from serin_control.config.reading import load_config, parse_config
from serin_control.config.schema import json_schema

__all__ = [
    "CascadeConfig",
    "ConfigInvalid",
    "GatewayConfig",
    "GuardsConfig",
    "IssuerConfig",
    "LimitsConfig",
    "MeshConfig",
    "ModelConfig",
    "PriceConfig",
    "Problem",
    "Release",
    "ResponsesConfig",
    "TenantConfig",
    "VersionConfig",
    "diff",
    "json_schema",
    "load_config",
    "parse_config",
]
