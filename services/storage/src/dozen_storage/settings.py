"""The settings of the storage service."""

from datetime import timedelta

from pydantic import Field

from dozen_chassis.settings import AdmittedSettings


class Settings(AdmittedSettings):
    """Settings of the storage service."""

    object_store_url: str = Field(
        description="Where bytes are kept, such as `s3://bucket`, `gs://bucket` or `file:///directory`."
    )
    max_file_bytes: int = Field(512 * 1024 * 1024, description="Largest file that is stored.")
    max_account_bytes: int = Field(10 * 1024**3, description="What the files of one account may take.")
    max_uploads: int = Field(
        16, description="Uploads at once before more are refused, 15 MiB of memory each."
    )
    upload_timeout: timedelta = Field(timedelta(minutes=30), description="How long one upload may take.")
