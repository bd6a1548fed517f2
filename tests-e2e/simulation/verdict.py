"""What has to be true of a run once all is quiet."""

from collections import Counter
from collections.abc import Sequence

from dozen_credits.domain.ledger import Book
from simulation.bank import Bank, open_leases
from simulation.gateway import Gateway
from simulation.plan import Plan
from simulation.promises import Promises
from simulation.world import World


def judge(world: World, plan: Plan, bank: Bank, gateways: Sequence[Gateway], promises: Promises) -> None:
    """Note all that is not as it must be."""
    _judge_charges(world, bank, promises)
    for account in plan.accounts:
        _judge_account(world, bank, promises, account.id)
    for lease in open_leases(bank.tables):
        world.expect(
            False, f"{promises.name(lease.id)} of {lease.account_id} is still open, with {lease.left}"
        )
    for gateway in gateways:
        if gateway.is_alive:
            held = sorted(gateway.state.holds.ids())
            world.expect(not held, f"{gateway.name} still holds for {held}")


def _judge_charges(world: World, bank: Bank, promises: Promises) -> None:
    """Every request is charged once what it reported, and one that reported nothing is not charged."""
    tables = bank.tables
    rated: dict[str, list[int]] = {}
    for payment in tables.payments:
        rated.setdefault(payment.charge.usage.request_id, []).append(payment.charge.nano_credits)
    used = {request_id: [cost] for request_id, (_, cost) in promises.reported.items() if cost}
    for request_id in used.keys() | rated.keys():
        costs, charged = used.get(request_id, []), rated.get(request_id, [])
        world.expect(costs == charged, f"{request_id} has used {costs} and is charged {charged}")
    posted: Counter[str] = Counter()
    for transfer in tables.transfers:
        if transfer.credit is Book.REVENUE:
            posted[transfer.reference] += transfer.nano_credits
    world.expect(
        posted == Counter({request_id: sum(costs) for request_id, costs in rated.items()}),
        "what is posted is not what is rated",
    )
    world.expect(promises.reported.keys() == tables.claimed.keys(), "not all that was reported is rated")
    world.expect(not tables.aside, f"{len(tables.aside)} records are set aside")


def _judge_account(world: World, bank: Bank, promises: Promises, account_id: str) -> None:
    tables = bank.tables
    books: Counter[Book] = Counter()
    for transfer in tables.transfers:
        if transfer.account_id == account_id:
            books[transfer.debit] -= transfer.nano_credits
            books[transfer.credit] += transfer.nano_credits
    balance, granted = tables.balances[account_id], bank.granted[account_id]
    charged = sum(cost for of, cost in promises.reported.values() if of == account_id)
    leased = sum(lease.left for lease in open_leases(tables) if lease.account_id == account_id)
    found = {
        "the sum of its entries": (books.total(), 0),
        "available by its entries": (books[Book.AVAILABLE], balance.available),
        "leased by its entries": (books[Book.LEASED], balance.leased),
        "leased by its leases": (leased, balance.leased),
        "granted by its entries": (-books[Book.ISSUED], granted),
        "charged by its entries": (books[Book.REVENUE], charged),
        "charged by its hours": (tables.summed[account_id], charged),
        "charged by its invoices": (tables.billed[account_id], charged),
        "all it has and has spent": (balance.total + charged + books[Book.WRITTEN_OFF], granted),
    }
    for what, (one, other) in found.items():
        world.expect(one == other, f"{account_id}: {what} is {one} and not {other}")
    written_off = -books[Book.WRITTEN_OFF]
    is_excused = account_id in promises.late
    world.expect(is_excused or not written_off, f"{account_id} has spent {written_off} more than it had")
