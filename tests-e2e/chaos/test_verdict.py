"""The verdict finds each kind of broken book; unharmed ones pass."""

from dataclasses import replace

import pytest

from chaos.facts import Balance, Books, Call, Facts, Lease, Transfer, UsageRow
from chaos.verdict import judge, late

EMBED = "POST /v1/embeddings"


@pytest.fixture
def facts() -> Facts:
    """An account that was granted 100 and charged 30, of which a lease of 20 has paid 10."""
    return Facts(
        granted={"acme": 100},
        calls=[
            Call("acme", EMBED, "req_1", 200, acknowledged=True),
            Call("acme", EMBED, "req_2", 200, acknowledged=True),
            Call("acme", EMBED, "req_3", 429),
            Call("acme", EMBED),
            Call("acme", EMBED, sent=False),
        ],
        books=Books(
            balances={"acme": Balance(available=60, leased=10)},
            transfers=[
                Transfer("acme", "issued", "available", 100, "grant_1"),
                Transfer("acme", "available", "leased", 20, "lease_1"),
                charge("req_1", 10, "leased"),
                charge("req_2", 20),
            ],
            usage=[UsageRow("req_1", "acme", EMBED, 10), UsageRow("req_2", "acme", EMBED, 20)],
            open_leases=[Lease("lease_1", "acme", 10, seconds_past_expiry=-2)],
            sums={("hour", "acme"): 30, ("key", "acme"): 30},
        ),
        open_holds=0,
        longest_request_seconds=60,
    )


def charge(request_id: str, nano_credits: int, book: str = "available") -> Transfer:
    return Transfer("acme", book, "revenue", nano_credits, request_id)


def with_books(facts: Facts, **changes: object) -> Facts:
    return replace(facts, books=replace(facts.books, **changes))  # type: ignore[arg-type]  # fields of it


def charged(facts: Facts, request_id: str, nano_credits: int = 5) -> Facts:
    """Add a charge of which no client knows, with all that belongs to it."""
    books = facts.books
    balance = books.balances["acme"]
    return with_books(
        facts,
        balances={"acme": replace(balance, available=balance.available - nano_credits)},
        transfers=[*books.transfers, charge(request_id, nano_credits)],
        usage=[*books.usage, UsageRow(request_id, "acme", EMBED, nano_credits)],
        sums={key: amount + nano_credits for key, amount in books.sums.items()},
    )


def test_unharmed_books_pass(facts: Facts) -> None:
    verdict = judge(facts)
    assert list(verdict.details()) == []
    assert verdict.is_clean
    assert verdict.summary(6) == (
        "chaos: kills=6 calls=5 acknowledged=2 lost=0 doubled=0 overspent=0 open_holds=0"
    )


def test_an_acknowledged_call_that_is_not_charged_is_lost(facts: Facts) -> None:
    more = Call("acme", EMBED, "req_4", 200, acknowledged=True)
    verdict = judge(replace(facts, calls=[*facts.calls, more]))
    assert len(verdict.lost) == 1
    assert "lost=1" in verdict.summary(1)
    assert not verdict.is_clean


def test_a_stream_that_its_client_left_need_not_be_charged(facts: Facts) -> None:
    assert judge(replace(facts, calls=[*facts.calls, Call("acme", EMBED, "req_4", 200)])).is_clean


def test_usage_that_the_ledger_lacks_is_lost(facts: Facts) -> None:
    verdict = judge(with_books(facts, transfers=facts.books.transfers[:-1]))
    assert len(verdict.lost) == 1
    assert verdict.overspent  # the balance is another than the ledger's, too


def test_usage_that_was_set_aside_is_lost(facts: Facts) -> None:
    assert len(judge(with_books(facts, set_aside=["req_9 (unknown_price)"])).lost) == 1


def test_a_request_that_is_rated_twice_is_doubled(facts: Facts) -> None:
    again = UsageRow("req_2", "acme", EMBED, 20)
    verdict = judge(with_books(facts, usage=[*facts.books.usage, again], sums={("hour", "acme"): 50}))
    assert "req_2 was rated 2 times" in verdict.doubled


def test_a_request_that_is_posted_twice_is_doubled(facts: Facts) -> None:
    twice = with_books(
        facts,
        transfers=[*facts.books.transfers, charge("req_2", 20)],
        balances={"acme": Balance(available=40, leased=10)},
    )
    verdict = judge(twice)
    assert len(verdict.doubled) == 1
    assert "doubled=1" in verdict.summary(1)
    assert verdict.overspent  # more has gone than usage explains


def test_sums_that_count_a_request_twice_or_not_at_all_are_found(facts: Facts) -> None:
    assert len(judge(with_books(facts, sums={("key", "acme"): 50})).doubled) == 1
    assert len(judge(with_books(facts, sums={("hour", "acme"): 29})).lost) == 1
    assert len(judge(with_books(facts, sums={("hour", "other"): 0})).lost) == 1


def test_one_charge_may_be_that_of_the_call_without_an_answer_but_not_two(facts: Facts) -> None:
    once = charged(facts, "req_7")
    assert judge(once).is_clean
    assert judge(charged(once, "req_8")).doubled == ("req_8 of acme was charged and never sent",)


def test_a_refused_call_is_not_charged(facts: Facts) -> None:
    assert len(judge(charged(facts, "req_3")).doubled) == 1


def test_a_call_is_not_charged_to_another_account(facts: Facts) -> None:
    calls = [replace(call, account="other") for call in facts.calls]
    assert len(judge(replace(facts, calls=calls)).doubled) == 2


@pytest.mark.parametrize(
    ("balance", "found"),
    [(Balance(-1, 71), 3), (Balance(59, 10), 2), (Balance(60, 9), 3), (Balance(61, 9), 2)],
)
def test_a_balance_that_is_not_the_sum_of_its_entries_is_overspent(
    facts: Facts, balance: Balance, found: int
) -> None:
    verdict = judge(with_books(facts, balances={"acme": balance}))
    assert len(verdict.overspent) == found
    assert not verdict.is_clean


def test_an_account_that_spent_more_than_it_was_granted_is_overspent(facts: Facts) -> None:
    assert len(judge(replace(facts, granted={"acme": 90})).overspent) == 2
    assert len(judge(with_books(facts, balances={})).overspent) == 1


def test_what_nobody_could_pay_is_overspent_unless_its_lease_had_been_given_up(facts: Facts) -> None:
    def unpaid(*, swept: bool) -> Facts:
        row = UsageRow("req_7", "acme", EMBED, 7, written_off=7, lease_was_swept=swept)
        books = facts.books
        return with_books(
            facts,
            transfers=[*books.transfers, charge("req_7", 7, "written_off")],
            usage=[*books.usage, row],
            sums={("hour", "acme"): 37},
        )

    assert len(judge(unpaid(swept=False)).overspent) == 1
    assert judge(unpaid(swept=True)).is_clean
    assert [row.request_id for row in late(unpaid(swept=True).books)] == ["req_7"]


def test_a_ledger_that_does_not_sum_to_zero_is_found(facts: Facts) -> None:
    assert judge(with_books(facts, ledger_sum=1)).overspent == ("the ledger sums to 1",)


def test_a_lease_past_its_expiry_and_a_hold_are_open(facts: Facts) -> None:
    lease = replace(facts.books.open_leases[0], seconds_past_expiry=91)
    assert len(judge(with_books(facts, open_leases=[lease])).open_holds) == 1
    still_kept = replace(lease, seconds_past_expiry=60)
    assert judge(with_books(facts, open_leases=[still_kept])).is_clean
    verdict = judge(replace(facts, open_holds=2))
    assert "open_holds=2" in verdict.summary(1)
    assert not verdict.is_clean


def test_a_fault_is_not_clean_whatever_the_books_say(facts: Facts) -> None:
    assert not judge(replace(facts, faults=["credits ended by itself"])).is_clean
