"""The SQL of the audio service, on a real database."""

import pytest

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_audio.domain import AudioFormat, SpeechRecord, TranscriptionRecord
from dozen_audio.repository import AudioRepository
from dozen_chassis.postgres import Database

pytestmark = pytest.mark.integration


async def test_a_transcription_is_recorded_without_its_words(database: Database) -> None:
    record = TranscriptionRecord("req_1", "acme", "whisper-tiny.en", 2000)
    assert await AudioRepository(database).add_transcription(record)
    (row,) = await database.pool.fetch("select * from transcriptions")
    assert row["created_at"] is not None
    assert {key: value for key, value in row.items() if key != "created_at"} == {
        "request_id": "req_1",
        "account_id": "acme",
        "model": "whisper-tiny.en",
        "milliseconds": 2000,
    }


async def test_a_speech_is_recorded_without_its_words(database: Database) -> None:
    record = SpeechRecord("req_1", "acme", "hibari", "heart", AudioFormat.OPUS, 12)
    assert await AudioRepository(database).add_speech(record)
    (row,) = await database.pool.fetch("select * from speeches")
    assert row["created_at"] is not None
    assert {key: value for key, value in row.items() if key != "created_at"} == {
        "request_id": "req_1",
        "account_id": "acme",
        "model": "hibari",
        "voice": "heart",
        "format": "opus",
        "characters": 12,
    }


async def test_what_fails_leaves_neither_a_record_nor_an_event(database: Database) -> None:
    async def fail() -> None:
        async with AudioRepository(database).transaction() as records:
            await records.add_transcription(TranscriptionRecord("req_1", "acme", "whisper-tiny.en", 2000))
            await records.emit(UsageReported())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await database.pool.fetchval("select count(*) from transcriptions") == 0
    assert await database.pool.fetchval("select count(*) from outbox") == 0
