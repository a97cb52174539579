"""What a fault's trials came to."""

import dataclasses


@dataclasses.dataclass
class Result:
    """One line of the card.

    Attributes:
      fault: what was done.
      promise: what must hold in every trial.
      trials: how many were made.
      failures: one line for each that didn't hold.
      seen: figures worth telling.
    """

    fault: str
    promise: str
    trials: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    seen: dict[str, object] = dataclasses.field(default_factory=dict)

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.failures.append(otherwise)

    def most(self, name: str, value: float) -> None:
        """Keeps the largest of a figure."""
        self.seen[name] = max(value, self.seen.get(name, value))

    def row(self) -> str:
        bound = f"{min(1.0, 3 / self.trials):.3%}" if self.trials and not self.failures else ""
        seen = "; ".join(
            f"{name} {round(value, 1) if isinstance(value, float) else value}"
            for name, value in self.seen.items()
        )
        cells = (self.fault, self.promise, self.trials, len(self.failures), bound, seen)
        return "| " + " | ".join(map(str, cells)) + " |"
