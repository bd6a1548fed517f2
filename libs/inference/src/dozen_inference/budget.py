"""A budget of retries for each model: what fails widely is not made worse by trying again."""

from collections import defaultdict


class RetryBudget:
    """Retries that may still be made; it begins full, and each request earns a part of one."""

    def __init__(self, *, earned: float = 0.1, most: float = 10) -> None:
        self._earned = earned
        self._most = most
        self._retries = most

    def earn(self) -> None:
        """Count a request."""
        if self._retries < self._most:
            self._retries = min(self._most, self._retries + self._earned)

    def spend(self) -> bool:
        """Take a retry; False where none is left."""
        if self._retries < 1:
            return False
        self._retries -= 1
        return True


class RetryBudgets(defaultdict[str, RetryBudget]):
    """The budget of each model, full at first."""

    def __init__(self) -> None:
        super().__init__(RetryBudget)
