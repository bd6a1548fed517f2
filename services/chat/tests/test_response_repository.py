"""Stored responses and conversations, in memory and in PostgreSQL."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from dozen_chassis.postgres import Database
from dozen_chat.domain.turns import MAX_CHAIN, Selection, StoredItem, Turn
from dozen_chat.repository.conversations import ConversationRepository
from dozen_chat.repository.responses import ResponseRepository

HOLD = timedelta(seconds=30)
NOW = timedelta(seconds=-1)
"""Older than this is everything."""


def turn(response_id: str, **fields: Any) -> Turn:
    return Turn(
        **{
            "account": "acme",
            "response_id": response_id,
            "previous_id": None,
            "conversation_id": None,
            "known": 0,
            "context_bytes": 10,
            "input": f"in {response_id}".encode(),
            "output": f"out {response_id}".encode(),
            "body": f"body {response_id}".encode(),
            **fields,
        }
    )


def items(*names: str) -> list[StoredItem]:
    return [StoredItem(name, f"item {name}".encode()) for name in names]


async def said(conversations: Any, conversation_id: str = "conv_1") -> list[str]:
    return [body.decode().removeprefix("item ") for _, body in await conversations.items(conversation_id)]


async def test_a_response_is_there_for_its_account_only(stored: tuple[Any, Any]) -> None:
    responses, _ = stored
    await responses.write([turn("resp_1"), turn("resp_2"), turn("resp_3", body=None)])
    assert await responses.find("acme", "resp_1") == (b"body resp_1", b"out resp_1")
    assert await responses.find("other", "resp_1") is None
    assert await responses.find("acme", "resp_3") is None  # it was not to be stored
    assert await responses.chain("other", "resp_1", 100) == []
    assert set(await responses.find_links("acme", ["resp_1", "resp_2", "resp_3"])) == {"resp_1", "resp_2"}
    assert await responses.find_links("other", ["resp_1"]) == {}
    assert not await responses.delete("other", "resp_1")
    assert await responses.delete("acme", "resp_1")
    assert not await responses.delete("acme", "resp_1")
    assert await responses.find("acme", "resp_1") is None
    assert await responses.find_links("acme", ["resp_1"]) == {}


async def test_a_chain_is_given_from_its_beginning(stored: tuple[Any, Any]) -> None:
    responses, _ = stored
    await responses.write([turn("resp_1"), turn("resp_2", previous_id="resp_1")])
    await responses.write([turn("resp_3", previous_id="resp_2", context_bytes=30)])
    await responses.write([turn("resp_x", previous_id="resp_1")])  # which may go on in several ways
    chain = await responses.chain("acme", "resp_3", 30)
    assert [link.input for link in chain] == [b"in resp_1", b"in resp_2", b"in resp_3"]
    assert [link.previous_id for link in chain] == [None, "resp_1", "resp_2"]
    assert await responses.chain("acme", "resp_3", 29) == []
    assert len(await responses.chain("acme", "resp_x", 30)) == 2


async def test_a_deleted_response_is_kept_while_others_go_on_from_it(stored: tuple[Any, Any]) -> None:
    responses, _ = stored
    await responses.write([turn("resp_1"), turn("resp_2", previous_id="resp_1")])
    assert await responses.delete("acme", "resp_1")
    assert await responses.find("acme", "resp_1") is None
    assert await responses.chain("acme", "resp_1", 100) == []
    assert len(await responses.chain("acme", "resp_2", 100)) == 2
    assert await responses.forget(timedelta(days=1), 10) == 0
    assert await responses.delete("acme", "resp_2")
    assert await responses.forget(timedelta(days=1), 10) == 1
    assert await responses.forget(timedelta(days=1), 10) == 0


async def test_what_is_old_enough_is_forgotten_from_the_ends_of_chains(stored: tuple[Any, Any]) -> None:
    responses, _ = stored
    await responses.write([turn("resp_1"), turn("resp_2", previous_id="resp_1"), turn("resp_3")])
    assert await responses.forget(timedelta(hours=1), 10) == 0
    assert await responses.forget(NOW, 10) == 2
    assert await responses.find("acme", "resp_1") is not None
    assert await responses.forget(NOW, 10) == 1
    assert await responses.forget(NOW, 10) == 0


async def test_a_conversation_is_there_for_its_account_only(stored: tuple[Any, Any]) -> None:
    _, conversations = stored
    created = await conversations.create("acme", "conv_1", {"a": "ü"}, items("1", "2"))
    assert await conversations.find("acme", "conv_1") == created
    assert created.metadata == {"a": "ü"}
    assert await conversations.find("other", "conv_1") is None
    assert (await conversations.update("acme", "conv_1", {})).metadata == {}
    assert await conversations.update("other", "conv_1", {}) is None
    assert not await conversations.begin_turn("other", "conv_1", "resp_1", HOLD)
    assert not await conversations.add_items("other", "conv_1", items("3"))
    assert await conversations.find_item("acme", "conv_1", "1") == b"item 1"
    assert await conversations.find_item("other", "conv_1", "1") is None
    assert await conversations.find_items("acme", ["1", "2", "3"]) == {"1": b"item 1", "2": b"item 2"}
    assert await conversations.find_items("other", ["1"]) == {}
    assert not await conversations.delete_item("other", "conv_1", "1")
    assert await conversations.delete_item("acme", "conv_1", "1")
    assert not await conversations.delete_item("acme", "conv_1", "1")
    assert await said(conversations) == ["2"]
    assert not await conversations.delete("other", "conv_1")
    assert await conversations.delete("acme", "conv_1")
    assert not await conversations.delete("acme", "conv_1")
    assert await said(conversations) == []


async def test_items_stay_in_order(stored: tuple[Any, Any]) -> None:
    _, conversations = stored
    names = [f"{index:03}" for index in range(60)]
    await conversations.create("acme", "conv_1", {}, items(*names[:20]))
    for start in (20, 40):
        assert await conversations.add_items("acme", "conv_1", items(*names[start : start + 20]))
    assert await said(conversations) == names
    assert await conversations.size("conv_1") == (60, 60 * len("item 000"))

    async def page(*selection: Any) -> tuple[list[str], bool]:
        found, has_more = await conversations.page("acme", "conv_1", Selection(*selection))
        return [item.id for item in found], has_more

    assert await page(2) == (["059", "058"], True)
    assert await page(2, "001") == (["000"], False)
    assert await page(3, "010", True) == (["011", "012", "013"], True)
    assert await page(100, None, True) == (names, False)
    assert await conversations.page("acme", "conv_1", Selection(after="elsewhere")) is None


async def test_one_response_at_a_time_is_given_in_a_conversation(stored: tuple[Any, Any]) -> None:
    responses, conversations = stored
    await conversations.create("acme", "conv_1", {}, items("0"))
    assert await conversations.begin_turn("acme", "conv_1", "resp_1", HOLD)
    assert not await conversations.begin_turn("acme", "conv_1", "resp_2", HOLD)
    assert not await conversations.add_items("acme", "conv_1", items("x"))
    await conversations.end_turn("resp_2")  # whose it is not
    assert not await conversations.begin_turn("acme", "conv_1", "resp_2", HOLD)
    await responses.write([turn("resp_1", conversation_id="conv_1", known=1, added=items("1", "2"))])
    assert await said(conversations) == ["0", "1", "2"]
    assert await conversations.begin_turn("acme", "conv_1", "resp_2", HOLD)
    await conversations.end_turn("resp_2")
    assert await conversations.add_items("acme", "conv_1", items("3"))


async def test_a_response_is_gone_with_its_conversation(stored: tuple[Any, Any]) -> None:
    responses, conversations = stored
    await conversations.create("acme", "conv_1", {}, [])
    assert await conversations.begin_turn("acme", "conv_1", "resp_1", HOLD)
    await conversations.delete("acme", "conv_1")
    ended = turn("resp_1", conversation_id="conv_1", added=items("1"))
    await responses.write([turn("resp_0"), ended])  # others that are written with it are not harmed
    assert await responses.find("acme", "resp_1") is None
    assert await responses.find("acme", "resp_0") is not None
    assert await said(conversations) == []


async def test_conversations_are_forgotten_in_batches(stored: tuple[Any, Any]) -> None:
    _, conversations = stored
    for index in range(3):
        await conversations.create("acme", f"conv_{index}", {}, items(str(index)))
    assert await conversations.forget(timedelta(hours=1), 10) == 0
    assert await conversations.forget(NOW, 2) == 2
    assert await conversations.forget(NOW, 2) == 1
    assert await conversations.find_items("acme", ["0", "1", "2"]) == {}


@pytest.mark.integration
async def test_deleting_a_conversation_deletes_its_responses(database: Database) -> None:
    responses, conversations = ResponseRepository(database), ConversationRepository(database)
    await conversations.create("acme", "conv_1", {}, [])
    await responses.write([turn("resp_1", conversation_id="conv_1", added=items("1"))])
    assert await responses.find("acme", "resp_1") is not None
    await conversations.delete("acme", "conv_1")
    assert await responses.find("acme", "resp_1") is None


@pytest.mark.integration
async def test_a_hold_ends_where_its_replica_does(database: Database) -> None:
    conversations = ConversationRepository(database)
    await conversations.create("acme", "conv_1", {}, [])
    assert await conversations.begin_turn("acme", "conv_1", "resp_1", timedelta(seconds=-1))
    assert await conversations.begin_turn("acme", "conv_1", "resp_2", timedelta(seconds=-1))
    await conversations.keep_turns(["resp_1", "resp_2"], HOLD)
    assert not await conversations.begin_turn("acme", "conv_1", "resp_3", HOLD)
    assert await conversations.forget(NOW, 10) == 0  # while a response is being given


@pytest.mark.integration
async def test_turns_that_end_together_do_not_lose_each_other(database: Database) -> None:
    responses, conversations = ResponseRepository(database), ConversationRepository(database)
    for name in ("conv_1", "conv_2"):
        await conversations.create("acme", name, {}, [])

    def both(index: int, *names: str) -> list[Turn]:
        return [
            turn(
                f"resp_{index}_{name}",
                conversation_id=name,
                added=items(f"{index}a{name}", f"{index}b{name}"),
            )
            for name in names
        ]

    async with asyncio.TaskGroup() as group:
        for index in range(20):
            names = ("conv_1", "conv_2") if index % 2 else ("conv_2", "conv_1")
            group.create_task(responses.write(both(index, *names)))
    for name in ("conv_1", "conv_2"):
        found = await said(conversations, name)
        assert len(found) == 40
        pairs = list(zip(found[::2], found[1::2], strict=True))
        assert all(first.replace("a", "b", 1) == second for first, second in pairs)


@pytest.mark.integration
async def test_a_chain_has_an_end(database: Database) -> None:
    responses = ResponseRepository(database)
    links = [turn("resp_0")]
    links += [turn(f"resp_{index}", previous_id=f"resp_{index - 1}") for index in range(1, MAX_CHAIN + 5)]
    await responses.write(links)
    assert len(await responses.chain("acme", f"resp_{MAX_CHAIN + 4}", 100)) == MAX_CHAIN
    await responses.write([turn("resp_a", previous_id="resp_b"), turn("resp_b", previous_id="resp_a")])
    assert len(await responses.chain("acme", "resp_a", 100)) == MAX_CHAIN  # though it should never be round
