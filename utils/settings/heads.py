"""The heads and stages from which nets are built: those of `nets`, those that rooms of extras add, and heads from outside."""

from collections.abc import Callable
from typing import Any

from nets.outside import code_of
from nets.registry import HEADS as OURS
from nets.registry import HeadRow
from pipnet.errors import UserError
from utils.settings import rooms


class Missing(HeadRow):
    """The row of a head whose room is missing. Its name stays known, so that who asks for it is told the folder."""

    def load(self) -> Any:
        rooms.heads.require()
        return super().load()


class Heads(dict[str, HeadRow]):
    """Rows of heads by name. The name of a head from outside of the checkout gives its row, and is not listed."""

    def __missing__(self, name: str) -> HeadRow:
        """Return the row of a head from outside. UserError if it is none or no flag has named it, see `code_of`."""
        try:
            row = code_of("heads", name)
        except ValueError as error:
            raise UserError(str(error)) from None
        if not isinstance(row, HeadRow):
            raise UserError(f"'{name}' is no head: a `HeadRow` of nets.registry is needed, which names its class")
        return row


MISSING = dict.fromkeys(("parts", "heatmap", "simcc"), Missing("", (32,), (), {}))
HEADS = Heads({**OURS, **(rooms.heads.HEADS if rooms.heads else MISSING)})
STAGES: dict[str, Callable[[], type]] = {"local_parts": lambda: rooms.systems.LocalParts}
