"""All SQL of the audio service."""

from dozen_audio.domain import SpeechRecord, TranscriptionRecord
from dozen_chassis.postgres import Repository


class AudioRepository(Repository):
    """Records of transcriptions and speeches."""

    async def add_transcription(self, record: TranscriptionRecord) -> bool:
        """Record a transcription; False where its request has one already."""
        added = await self.db.fetchval(
            "insert into transcriptions (request_id, account_id, model, milliseconds)"
            " values ($1, $2, $3, $4) on conflict do nothing returning true",
            record.request_id, record.account, record.model, record.milliseconds,
        )  # fmt: skip
        return added is not None

    async def add_speech(self, record: SpeechRecord) -> bool:
        """Record a speech; False where its request has one already."""
        added = await self.db.fetchval(
            "insert into speeches (request_id, account_id, model, voice, format, characters)"
            " values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning true",
            record.request_id, record.account, record.model, record.voice, record.format, record.characters,
        )  # fmt: skip
        return added is not None
