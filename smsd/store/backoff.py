"""Exponential back-off. Callers bring the time."""


class Backoff:
    """The delay before something that failed is tried again: twice as long after each
    failure.
    """

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._delay_s = 0.0
        self._until_s = 0.0

    def failed(self, now_s: float) -> float:
        """Note a failure. Returns how many seconds to wait."""
        self._delay_s = min(max(2 * self._delay_s, self._first_s), self._longest_s)
        self._until_s = now_s + self._delay_s
        return self._delay_s

    def succeeded(self) -> None:
        """Start again from the shortest delay."""
        self._delay_s = self._until_s = 0.0

    def is_waiting(self, now_s: float) -> bool:
        """Whether the delay after the last failure is not over yet."""
        return now_s < self._until_s
