"""The landmarks of a face: how many, which mirror which, and how they are joined."""
from typing import Any, NamedTuple


class Layout(NamedTuple):
    """Which landmarks a face has. Indices are 0-based positions in (N, 2); left and right are of the image.

    selected: positions of these landmarks in the layout that the data is stored in (all of them unless it is a subset).
    same_as: {stored layout: {landmark: the same landmark there}}, which lets a net of that layout start one of this.
    """
    name: str
    count: int
    flip_index: tuple[int, ...]
    interocular: tuple[int, int] | None
    pupils: tuple[tuple[int, ...], tuple[int, ...]] | None
    groups: dict[str, tuple[int, ...]]
    closed: tuple[str, ...]
    selected: tuple[int, ...]
    stored: str
    same_as: dict[str, dict[int, int]]

    def edges(self) -> list[tuple[int, int]]:
        """Pairs of landmarks that a drawing joins."""
        pairs = []
        for name, part in self.groups.items():
            pairs += list(zip(part, part[1:], strict=False))
            if name in self.closed and len(part) > 2:
                pairs.append((part[-1], part[0]))
        return pairs

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {key: _plain(value) for key, value in self._asdict().items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Layout":
        """The inverse of `to_dict`."""
        values = dict(values)
        values["groups"] = {name: tuple(part) for name, part in values.pop("parts" if "parts" in values else "groups").items()}
        if values["pupils"]:
            values["pupils"] = tuple(tuple(part) for part in values["pupils"])
        for key in ("flip_index", "interocular", "closed", "selected"):
            values[key] = tuple(values[key]) if values[key] is not None else None
        same = values.get("same_as", {})  # JSON makes text of the numbers
        values["same_as"] = {name: {int(i): int(j) for i, j in pairs.items()} for name, pairs in same.items()}
        return cls(**values)


def _plain(value):
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
