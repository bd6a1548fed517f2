"""The SQL of the audio service, on a real database."""

import pytest

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_audio.domain import AudioFormat, SpeechRecord, TranscriptionRecord
from dozen_audio.repository import AudioRepository
from dozen_audio.service import Entry, write
from dozen_chassis.admission import Admission
from dozen_chassis.postgres import Database
from dozen_inference.usage import usage_record

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


async def test_what_is_written_together_is_one_event_and_each_request_is_in_it_once(
    database: Database, admission: Admission
) -> None:
    heard = Entry(
        usage_record(admission, {"audio_milliseconds": 2000}),
        TranscriptionRecord("req_1", "acme", "whisper-tiny.en", 2000),
    )
    spoken = Entry(
        usage_record(admission, {"characters": 12}),
        SpeechRecord("req_2", "acme", "hibari", "heart", AudioFormat.OPUS, 12),
    )
    failed = Entry(usage_record(admission, {}))
    await write(AudioRepository(database), [heard, spoken, failed, heard, spoken])
    await write(AudioRepository(database), [heard, spoken])
    (payload,) = [row["payload"] for row in await database.pool.fetch("select payload from outbox")]
    records = UsageReported.FromString(payload).records
    assert [dict(record.quantities) for record in records] == [
        {"audio_milliseconds": 2000},
        {"characters": 12},
        {},
    ]


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
