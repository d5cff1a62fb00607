"""Where the boxes of a pipeline stand, and how arrows get from one to another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BOX_W, BOX_H, GAP_X, GAP_Y = 204, 84, 40, 34
LANE = 18
"""Between two arrows that pass over the first row."""
TIP = 5
"""Room for an arrow's head."""


@dataclass(frozen=True)
class Place:
    """A box: its column and row, from 0."""

    column: int
    row: int

    @property
    def left(self) -> float:
        """x of the left side."""
        return self.column * (BOX_W + GAP_X) + 2

    @property
    def right(self) -> float:
        """x of the right side."""
        return self.left + BOX_W

    @property
    def top(self) -> float:
        """y of the upper side."""
        return self.row * (BOX_H + GAP_Y)

    @property
    def middle(self) -> float:
        """y of the centre."""
        return self.top + BOX_H / 2


def places(parents: Mapping[str, Sequence[str]]) -> dict[str, Place]:
    """Column: one after the last of its inputs; what has none stands next to what it feeds. Longest chain on top.

    Args:
        parents: of every box, which must come after them.
    """
    children = {n: [m for m in parents if n in parents[m]] for n in parents}
    depth: dict[str, int] = {}
    for name, inputs in parents.items():
        depth[name] = max((depth[p] + 1 for p in inputs), default=0)
    for name, inputs in parents.items():
        if not inputs and children[name]:
            depth[name] = min(depth[c] for c in children[name]) - 1
    reach: dict[str, int] = {}
    for name in reversed(list(parents)):
        reach[name] = max((reach[c] + 1 for c in children[name]), default=0)
    found: dict[str, Place] = {}
    for column in sorted(set(depth.values())):
        names = sorted((n for n in parents if depth[n] == column), key=lambda n: (not parents[n], -reach[n]))
        found |= {name: Place(column, row) for row, name in enumerate(names)}
    return found


def lanes(edges: Sequence[tuple[Place, Place]], taken: frozenset[Place]) -> dict[tuple[Place, Place], int]:
    """The lane of each arrow that must pass over the first row; the longest on top, so that they do not cross."""
    over = [e for e in edges if e[0].row == e[1].row == 0 and _blocked(*e, row=0, taken=taken)]
    return {e: i for i, e in enumerate(sorted(over, key=lambda e: e[1].column - e[0].column))}


def path(start: Place, end: Place, taken: frozenset[Place], lane: int | None) -> str:
    """An SVG path from one box to another that keeps clear of the boxes between."""
    if end.column - start.column == 1:
        return _curve(start, end)
    if lane is not None:
        return _arch(start.right - 20 - 14 * lane, start.top, end.left + BOX_W / 2, end.top, -LANE * (lane + 0.75))
    if start.row == end.row:
        if not _blocked(start, end, start.row, taken):
            return f"M{start.right} {start.middle}H{end.left - TIP}"
        return _arch(start.right - 20, start.top, end.left + BOX_W / 2, end.top, start.top - GAP_Y / 2)
    if start.row < end.row and not _blocked(start, end, end.row, taken, from_start=True):
        x = start.left + BOX_W / 2
        return f"M{x} {start.top + BOX_H}V{end.middle - 8}Q{x} {end.middle} {x + 8} {end.middle}H{end.left - TIP}"
    if start.row > end.row and not _blocked(start, end, start.row, taken):
        x = end.left - GAP_X / 2
        y = start.middle
        return f"M{start.right} {y}H{x - 8}Q{x} {y} {x} {y - 8}V{end.middle}H{end.left - TIP}"
    return _detour(start, end)


def _blocked(start: Place, end: Place, row: int, taken: frozenset[Place], from_start: bool = False) -> bool:
    first = start.column + (0 if from_start else 1)
    return any(Place(column, row) in taken for column in range(first, end.column))


def _curve(start: Place, end: Place) -> str:
    x1, x2 = start.right, end.left - TIP
    middle = (x1 + x2) / 2
    return f"M{x1} {start.middle}C{middle} {start.middle} {middle} {end.middle} {x2} {end.middle}"


def _detour(start: Place, end: Place) -> str:
    """Between the columns next to both boxes, and between the rows next to the end: there is never a box."""
    x1, x2 = start.right + GAP_X / 2, end.left - GAP_X / 2
    down = 8 if end.row > start.row else -8
    y = end.top - GAP_Y / 2 if end.row > start.row else end.top + BOX_H + GAP_Y / 2
    out = f"M{start.right} {start.middle}H{x1 - 8}Q{x1} {start.middle} {x1} {start.middle + down}V{y - down}"
    along = f"Q{x1} {y} {x1 + 8} {y}H{x2 - 8}Q{x2} {y} {x2} {y + down}V{end.middle - down}"
    return f"{out}{along}Q{x2} {end.middle} {x2 + 8} {end.middle}H{end.left - TIP}"


def _arch(x1: float, y1: float, x2: float, y2: float, top: float) -> str:
    return f"M{x1} {y1}V{top + 8}Q{x1} {top} {x1 + 8} {top}H{x2 - 8}Q{x2} {top} {x2} {top + 8}V{y2 - TIP}"
