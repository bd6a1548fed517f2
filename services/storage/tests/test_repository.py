"""The repository, and the fake that stands in for it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dozen_chassis.postgres import Database
from dozen_storage.domain import File
from dozen_storage.repository import FilesRepository
from dozen_storage.service import Files

pytestmark = pytest.mark.integration


@pytest.fixture(params=["fake", "postgres"])
def files(request: pytest.FixtureRequest) -> Files:
    if request.param == "fake":
        fake: Files = request.getfixturevalue("fake_files")
        return fake
    database: Database = request.getfixturevalue("database")
    return FilesRepository(database)


async def listed(files: Files, *, purpose: str | None = None, after: str | None = None) -> list[str]:
    found = await files.page("acme", purpose=purpose, after=after, ascending=False, limit=2)
    return [file.id for file in found]


async def test_a_file_is_found_by_its_account_until_it_is_removed(files: Files, a_file: File) -> None:
    assert await files.add(a_file, None)
    assert await files.find("acme", a_file.id) == a_file
    assert await files.find("other", a_file.id) is None
    assert await files.remove("other", a_file.id) is None
    assert await files.remove("acme", a_file.id) == a_file
    assert await files.find("acme", a_file.id) is None


async def test_an_idempotency_key_belongs_to_one_file_of_an_account(files: Files, a_file: File) -> None:
    assert await files.add(a_file, "key")
    assert not await files.add(replace(a_file, id="file-2"), "key")
    assert await files.add(replace(a_file, id="file-3", account_id="other"), "key")
    assert await files.find_repeated("acme", "key") == a_file
    assert await files.find("acme", "file-2") is None
    await files.remove("acme", a_file.id)
    assert await files.add(replace(a_file, id="file-4"), "key")


async def test_pages_go_by_id_and_survive_the_removal_of_their_cursor(files: Files, a_file: File) -> None:
    for number in range(1, 6):
        purpose = "batch" if number % 2 else "vision"
        await files.add(replace(a_file, id=f"file-{number}", purpose=purpose), None)
    await files.add(replace(a_file, id="file-9", account_id="other"), None)
    assert await listed(files) == ["file-5", "file-4"]
    await files.remove("acme", "file-4")
    assert await listed(files, after="file-4") == ["file-3", "file-2"]
    assert await listed(files, purpose="batch", after="file-3") == ["file-1"]
    ascending = await files.page("acme", purpose=None, after="file-2", ascending=True, limit=9)
    assert [file.id for file in ascending] == ["file-3", "file-5"]


async def test_an_expired_file_is_not_to_be_seen(files: Files, a_file: File) -> None:
    past, future = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    await files.add(replace(a_file, expires_at=past), None)
    await files.add(replace(a_file, id="file-2", expires_at=future), None)
    assert await files.find("acme", a_file.id) is None
    assert await listed(files) == ["file-2"]
    assert [file.id for file in await files.expired(10)] == [a_file.id]


async def test_room_is_taken_up_to_the_limit_and_given_back(files: Files) -> None:
    assert not await files.take_room("acme", 11, 10)
    assert await files.take_room("acme", 6, 10)
    assert not await files.take_room("acme", 5, 10)
    assert await files.take_room("acme", 4, 10)
    assert await files.used_bytes("acme") == 10
    await files.give_room("acme", 6)
    assert await files.used_bytes("acme") == 4
    assert await files.used_bytes("other") == 0


async def test_an_object_is_owned_in_time_or_removed(files: Files) -> None:
    await files.disown("acme/late", timedelta())
    await files.disown("acme/kept", timedelta(hours=1))
    assert not await files.own("acme/late")
    assert not await files.own("acme/unknown")
    assert await files.own("acme/kept")
    assert await files.lock_unowned() == "acme/late"
    await files.disown("acme/late", timedelta(hours=1))
    assert await files.lock_unowned() is None
    await files.forget_unowned("acme/late")
    assert not await files.own("acme/late")


async def test_a_failed_transaction_changes_nothing(files: Files, a_file: File) -> None:
    async def fail() -> None:
        async with files.transaction() as tx:
            await tx.add(a_file, None)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await files.find("acme", a_file.id) is None


async def test_two_do_not_remove_the_same_object(database: Database) -> None:
    files = FilesRepository(database)
    await files.disown("acme/1", timedelta())
    async with files.transaction() as first, files.transaction() as second:
        assert await first.lock_unowned() == "acme/1"
        assert await second.lock_unowned() is None
