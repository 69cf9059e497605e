"""Faults and repairs of a data set; standard library alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# An error keeps a training from starting, or makes it learn something else than the data say.
ERROR, WARNING, REPAIRED = "error", "warning", "repaired"


@dataclass(frozen=True)
class Fault:
    """A kind of fault in one file or part, with all places where it was found.

    Args:
        where: The file, or the part (``train``, ``val``).
        what: What is wrong, in a clause whose subject is a number of things.
        count: How many there are.
        items: Ids, file names or lines of those; all of them.
        remedy: What to do, in a clause.
        severity: ``error``, ``warning`` or ``repaired`` (in the copy that training reads).
    """

    where: str
    what: str
    count: int
    items: tuple[str, ...] = ()
    remedy: str = ""
    severity: str = ERROR

    @property
    def sentence(self) -> str:
        """All of it, with the first places."""
        places = ", ".join(self.items[:3]) + (", ..." if len(self.items) > 3 else "")
        text = f"{self.where}: {self.what}" + (f" ({places})" if places else "")
        return f"{text}; {self.remedy}" if self.remedy else text

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "items": list(self.items)}
