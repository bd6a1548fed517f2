"""The settings of the gateway."""

from pydantic import Field, SecretStr

from dozen_chassis.settings import AdmittedSettings


class Settings(AdmittedSettings):
    """Settings of the gateway."""

    admission_master_key: SecretStr = Field(
        description="Hex key from which each service's admission key is derived."
    )
    service_addresses: dict[str, str] = Field(
        description="JSON object of services to their base URLs; a model's requests go to its deployment's."
    )
    credits_address: str = Field(description="Host and port of credits' gRPC.")
    credits_token: SecretStr = Field(description="Token that this service shows credits.")
    longest_request_seconds: float = Field(
        1200, gt=0, description="How long after its admission has expired a request may still be settled."
    )
    max_state_age_seconds: float = Field(
        300, gt=0, description="How long decisions go on without word from the database."
    )
    max_audio_body_bytes: int = Field(
        26 * 1024 * 1024, description="Largest body of a request under /v1/audio/."
    )
    max_image_body_bytes: int = Field(
        21 * 1024 * 1024, description="Largest body of a request under /v1/images/."
    )
    max_upload_body_bytes: int = Field(
        513 * 1024 * 1024, description="Largest body of a file upload, which is not held in memory."
    )
