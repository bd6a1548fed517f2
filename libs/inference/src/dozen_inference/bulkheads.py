"""A bulkhead for each deployment: one that hangs takes no more requests down than these."""


class Bulkhead:
    """So many places; whoever finds none is told so at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    def enter(self) -> bool:
        """Take a place; False where all are taken."""
        if self.taken >= self.most:
            return False
        self.taken += 1
        return True

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1
