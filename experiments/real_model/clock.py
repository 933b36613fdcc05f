"""When a study begins nothing new."""

from __future__ import annotations

from datetime import datetime

from entropilot.errors import UserError


class Clock:
    """Say whether there is time for one more run.

    Args:
        until: HH:MM of today; None never ends.

    Raises:
        UserError: no time of the day.
    """

    def __init__(self, until: str | None = None) -> None:
        try:
            self.end = None if until is None else datetime.strptime(until, "%H:%M").time()
        except ValueError:
            raise UserError(f"--until is {until!r}; give a time of the day, such as 08:00.") from None

    def over(self) -> bool:
        """Return whether the time has come."""
        return self.end is not None and datetime.now().time() >= self.end
