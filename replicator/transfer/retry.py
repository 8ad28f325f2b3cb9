"""The one retry policy: how long a failed path waits. Libraries below make one attempt each.

The queue does the waiting, so nobody sleeps on a key. Waits are exponential with full jitter, so that a fleet does not
come back in step.
Source: tenacity's wait strategies; "Exponential Backoff And Jitter" is the textbook name of the method.
"""

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_never, wait_random_exponential

from replicator.errors import BudgetSpent, Retryable, SourceChanged, Throttled, TransferError

_SOURCE_CHANGED_MAX_S = 2.0
"""A file in motion is no fault: look again soon, however often it moved."""


class RetryPolicy:
    """How long a failed key waits before it is looked at again."""

    def __init__(self, *, max_s: float, parked_s: float) -> None:
        self._max_s = max_s
        self._parked_s = parked_s
        self._retrying = Retrying(
            retry=retry_if_exception_type(Retryable),
            wait=wait_random_exponential(multiplier=0.5, max=max_s),
            stop=stop_never,
        )

    def delay_s(self, error: TransferError, attempts: int) -> float:
        """Seconds until attempt `attempts + 1`. Permanent errors wait the slow pace of parked keys."""
        state = RetryCallState(self._retrying, None, (), {})
        state.attempt_number = attempts
        state.set_exception((type(error), error, None))
        if not self._retrying.retry(state):
            return self._parked_s
        delay_s = float(self._retrying.wait(state))
        if isinstance(error, SourceChanged):
            return min(delay_s, _SOURCE_CHANGED_MAX_S) if error.retry_after_s is None else error.retry_after_s
        if isinstance(error, Throttled) and error.retry_after_s is not None:
            return max(delay_s, error.retry_after_s)
        if isinstance(error, BudgetSpent):
            return min(self._max_s, error.retry_after_s)  # asking costs nothing, and the budget may be raised meanwhile
        return delay_s
