"""An outage is told when it begins and when it is over, however many requests it costs. Pure."""


class Outage:
    """Something that goes wrong for a while."""

    def __init__(self) -> None:
        self._is_on = False

    def begins(self) -> bool:
        """It went wrong: whether that is news."""
        was_on, self._is_on = self._is_on, True
        return not was_on

    def ends(self) -> bool:
        """It worked: whether that is news."""
        was_on, self._is_on = self._is_on, False
        return was_on
