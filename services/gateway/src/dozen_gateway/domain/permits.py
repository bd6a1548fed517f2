"""Permits: what the limits have granted to this replica, ahead of its requests."""

from collections import deque
from collections.abc import Iterable, Sequence

from dozen_gateway.domain.allotment import Answer, Exchange
from dozen_gateway.domain.limits import Cost, Exceeded, Measure, Subject, worst
from dozen_gateway.domain.stock import PERMIT_SECONDS, RENEWAL_SECONDS, SLOT_SECONDS, Stock, headers


class Permits:
    """The permits of one replica.

    Whatever replicas there are, come, go or crash: in any span of t seconds they admit together at most
    `limit` * (1 + (t + 1) / 60) requests or tokens. Of a bucket at most `limit` * (1 + t / 60) are drawn, and
    what is drawn is used within a second. Tokens count when their request is admitted: all that it may use,
    and as soon as that is known, what it used. At most `limit` requests run at a time; those of a replica
    that crashed, or lost the database, are not counted any more after a minute.

    All is in memory; `prepare` and `learn` are the ends of an exchange with the database. `now` is monotonic.
    """

    def __init__(self) -> None:
        self._stocks: dict[Subject, Stock] = {}
        self._looks: deque[tuple[float, Subject]] = deque()
        """When to look at each stock again."""
        self._returns: dict[str, dict[tuple[Subject, int, int], int]] = {}
        """What comes back, by account, and by subject, limit and draw."""
        self._changed: dict[str, set[Subject]] = {}
        """Of which the number of slots has to be told, by account."""

    def weigh(self, costs: Sequence[Cost], now: float) -> Exceeded | tuple[Cost, ...]:
        """Tell what is missing and has to be drawn, or the limit that is known to have no room."""
        stocks = self._stocks
        missing: tuple[Cost, ...] = ()
        for cost in costs:
            subject, _, amount, _ = cost
            stock = stocks.get(subject)
            if stock is None or stock.left < amount or stock.until <= now:
                missing = (*missing, cost)
        if not missing:
            return missing
        return worst([refusal for cost in missing if (refusal := self._refusal(cost, now))]) or missing

    def take(self, costs: Sequence[Cost]) -> tuple[Cost, ...]:
        """Take what was just weighed and is enough; give the costs in the form in which they come back."""
        stocks = self._stocks
        taken = []
        for subject, limit, amount, _ in costs:
            stock = stocks[subject]
            stock.left -= amount
            stock.out += amount
            taken.append(Cost(subject, limit, amount, stock.drawn_at))
        return tuple(taken)

    def give_back(self, taken: Sequence[Cost], used_tokens: int) -> bool:
        """Take back slots, and tokens beyond those used; a request stays counted. Each cost comes back once.

        True where the database should hear of it at once.
        """
        at_once = False
        for cost in taken:
            subject, limit, amount, drawn_at = cost
            if subject.measure is Measure.CONCURRENT:
                at_once |= self._vacate(cost)
            elif subject.measure is Measure.TOKENS and used_tokens < amount:
                self._return(subject, limit, drawn_at, amount - max(0, used_tokens))
        return at_once

    def headers(self, costs: Sequence[Cost], now: float) -> dict[str, str]:
        """Give OpenAI's headers, for the limits that leave the least."""
        return headers(self._stocks, costs, now)

    def prepare(self, accounts: Iterable[str], orders: Sequence[tuple[Cost, ...]], now: float) -> Exchange:
        """Begin an exchange about some accounts, of which no other may be under way."""
        held: dict[Subject, int] = {}
        for subject in (cost.subject for order in orders for cost in order):
            if subject.measure is Measure.CONCURRENT:
                held[subject] = 0
            elif (stock := self._stocks.get(subject)) is not None:
                self._give_up(subject, stock)
        returns = []
        for account in accounts:
            held.update(dict.fromkeys(self._changed.pop(account, ()), 0))
            returns += [
                Cost(subject, limit, amount, drawn_at)
                for (subject, limit, drawn_at), amount in self._returns.pop(account, {}).items()
            ]
        for subject in held:
            if (stock := self._stocks.get(subject)) is not None:
                if stock.until <= now:
                    stock.left = 0
                held[subject] = stock.left + stock.out
        return Exchange(orders, returns, held)

    def learn(self, exchange: Exchange, answer: Answer, asked_at: float, now: float) -> None:
        """End an exchange that the database has answered."""
        for cost in (cost for order in exchange.orders for cost in order):
            self._stock(cost.subject, now).limit = cost.limit
        for subject, granted in answer.granted.items():
            stock = self._stocks[subject]
            stock.left += granted
            if granted and subject.measure is not Measure.CONCURRENT:
                stock.drawn_at, stock.until = answer.now, asked_at + PERMIT_SECONDS
        for subject in exchange.held.keys() & self._stocks.keys():
            self._stocks[subject].until = asked_at + SLOT_SECONDS
        for subject in answer.lacks.keys() & self._stocks.keys():
            self._stocks[subject].full_at = now + answer.lacks[subject] / 1e9
        for refusal in filter(None, answer.refusals):
            self._stocks[refusal.cost.subject].refuse(refusal, now)

    def lose(self, exchange: Exchange) -> None:
        """End an exchange of which nobody knows what became: what came back is lost, slots are told anew."""
        for subject in exchange.held:
            self._tell(subject)

    def sweep(self, now: float) -> None:
        """Give up what was not used within a second, and have slots renewed."""
        while self._looks and self._looks[0][0] <= now:
            _, subject = self._looks.popleft()
            stock = self._stocks[subject]
            if subject.measure is Measure.CONCURRENT:
                self._sweep_slots(subject, stock, now)
                in_use = stock.out > 0 or stock.left > 0
            elif not (in_use := stock.until > now):
                self._give_up(subject, stock)
            if in_use or stock.refused_until > now:
                self._looks.append((now + PERMIT_SECONDS, subject))
            else:
                del self._stocks[subject]

    def due(self) -> list[str]:
        """Name the accounts of which the database should hear something."""
        return list({**self._returns, **self._changed})

    def surrender(self) -> None:
        """Give up everything, at the end of this process."""
        for subject, stock in self._stocks.items():
            if subject.measure is Measure.CONCURRENT:
                self._tell(subject)
            else:
                self._give_up(subject, stock)
        self._stocks.clear()
        self._looks.clear()

    def _refusal(self, cost: Cost, now: float) -> Exceeded | None:
        if cost.amount > cost.limit:
            return Exceeded(cost, 0, 0.0, too_large=True)
        stock = self._stocks.get(cost.subject)
        return stock.refusal(cost, now) if stock is not None else None

    def _stock(self, subject: Subject, now: float) -> Stock:
        stock = self._stocks.get(subject)
        if stock is None:
            stock = self._stocks[subject] = Stock()
            self._looks.append((now + PERMIT_SECONDS, subject))
        return stock

    def _vacate(self, cost: Cost) -> bool:
        stock = self._stocks.get(cost.subject)
        if stock is None:
            return False
        stock.out -= 1
        stock.refused_until = 0.0
        if cost.ahead > 1:
            stock.left += 1
            return False
        self._tell(cost.subject)
        return True

    def _sweep_slots(self, subject: Subject, stock: Stock, now: float) -> None:
        idle = stock.left - Cost(subject, stock.limit, 1).ahead if stock.out else stock.left
        if idle > 0:
            stock.left -= idle
            self._tell(subject)
        elif stock.out and stock.until - now < SLOT_SECONDS - RENEWAL_SECONDS:
            self._tell(subject)

    def _give_up(self, subject: Subject, stock: Stock) -> None:
        if stock.left:
            self._return(subject, stock.limit, stock.drawn_at, stock.left)
            stock.left = 0

    def _return(self, subject: Subject, limit: int, drawn_at: int, amount: int) -> None:
        returns = self._returns.setdefault(subject.account, {})
        returns[subject, limit, drawn_at] = returns.get((subject, limit, drawn_at), 0) + amount

    def _tell(self, subject: Subject) -> None:
        self._changed.setdefault(subject.account, set()).add(subject)
