"""What the control plane can be told."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from serin_mesh.settings import ServiceSettings

from serin_control.xds.edge import EdgeSettings


class ControlSettings(ServiceSettings):
    """Settings of `python -m serin_control`."""

    config_file: Path | None = Field(None, description="serin.yaml to begin with; taken over whenever it has changed")
    state_redis: str = Field(
        "", description="URL of the Redis that state survives in; empty: state ends with the process"
    )
    edge_host: str = Field("127.0.0.1", description="address that Envoy listens on for the world")
    edge_port: int = Field(0, ge=0, le=65535, description="port that Envoy listens on for the world; 0: any free one")
    edge_tls_dir: str = Field(
        "", description="folder on Envoy's machine with cert.pem and key.pem for the world; empty: no TLS"
    )
    edge_cert_file: str = Field(
        "", description="file on Envoy's machine with the certificate for the world, instead of --edge-tls-dir"
    )
    edge_key_file: str = Field("", description="file on Envoy's machine with the key of --edge-cert-file")
    mesh_edge_host: str = Field(
        "127.0.0.1", description="address that Envoy listens on for plain gRPC callers inside the mesh"
    )
    mesh_edge_port: int = Field(
        -1, ge=-1, le=65535, description="port that Envoy listens on for plain gRPC callers inside; -1: none"
    )
    envoy_tls_dir: str = Field(
        "", description="folder on Envoy's machine with its own ca.pem, cert.pem and key.pem in the mesh; empty: no TLS"
    )

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if bool(self.edge_cert_file) != bool(self.edge_key_file):
            raise ValueError(f"edge_key_file: {self.edge_key_file!r}: a file, together with --edge-cert-file")
        return self

    @property
    def edge(self) -> EdgeSettings:
        """How Envoy should listen."""
        return EdgeSettings(
            host=self.edge_host,
            port=self.edge_port,
            mesh_host=self.mesh_edge_host,
            mesh_port=self.mesh_edge_port if self.mesh_edge_port >= 0 else None,
            public_certificate=self.edge_cert_file or (f"{self.edge_tls_dir}/cert.pem" if self.edge_tls_dir else ""),
            public_key=self.edge_key_file or (f"{self.edge_tls_dir}/key.pem" if self.edge_tls_dir else ""),
            mesh_certificates=self.envoy_tls_dir,
        )
