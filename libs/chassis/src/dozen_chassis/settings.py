"""The settings that every service has, read once from the environment."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Base of a service's settings; each field is the environment variable `DOZEN_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix="DOZEN_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    http_host: str = Field("0.0.0.0", description="Address that HTTP listens on.")
    http_port: int = Field(8080, description="Port of HTTP.")
    grpc_host: str = Field("0.0.0.0", description="Address that gRPC listens on.")
    grpc_port: int = Field(9090, description="Port of gRPC.")
    grpc_key: SecretStr = Field(description="Hex key that tokens of gRPC callers are verified with.")
    postgres_dsn: SecretStr = Field(description="Connection string of this service's own database.")
    nats_url: SecretStr = Field(description="NATS server, with this service's user and password.")
    nats_replicas: int = Field(
        1, description="Copies that NATS keeps of this service's events; 3 in a cluster."
    )
    log_level: str = Field("INFO", description="Lowest level that is logged.")
    otlp_endpoint: str | None = Field(None, description="OTLP/HTTP collector for traces; none sends none.")
    shutdown_seconds: float = Field(30, description="How long running work may take to finish at shutdown.")
    max_body_bytes: int = Field(4 * 1024 * 1024, description="Largest request body that is accepted.")


class AdmittedSettings(ServiceSettings):
    """Settings of a service that serves requests admitted by the gateway."""

    admission_key: SecretStr = Field(description="Hex key that the gateway's admissions are verified with.")
