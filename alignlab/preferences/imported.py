"""ImportPreferences: comparisons that came with the data, written as a labelling stage writes its own."""

from collections.abc import Mapping
from typing import ClassVar, get_args

from alignlab.artifact import Artifact, Kind
from alignlab.data import preferences
from alignlab.data.preflight import check_data
from alignlab.data.source import DataSource, Need, Split
from alignlab.policy.previews import compared_texts
from alignlab.stage import Stage, StageContext


class ImportPreferences(Stage):
    """Write the data's own comparisons as a preferences artifact.

    Stages that learn from preferences also validate on them, so pairs of both parts are needed.

    Args:
        inputs: none.
        seed: not used; the data's split is fixed.
        data: where the comparisons come from.
    """

    VERSION: ClassVar[str] = "2"
    PRODUCES: ClassVar[Kind] = "preferences"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"inputs", "seed"})

    def __init__(self, *, data: DataSource, inputs: Mapping[str, str] | None = None, seed: int = 0) -> None:
        super().__init__(inputs, seed)
        self.data = data

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Comparisons, of both parts."""
        return [(self.data, Need("comparisons", held_out=True))]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Write `preferences.jsonl`; returns how many pairs there are and how long their answers are.

        Raises:
            DataError: the pairs cannot be read, or none is held out.
        """
        check_data({context.name: self.data_needs()})
        pairs = [(split, pair) for split in get_args(Split) for pair in self.data.comparisons(split)]
        preferences.write(context.folder, (preferences.row(p, split, source=p.source) for split, p in pairs))
        held_out = [pair for split, pair in pairs if split == "validation"]
        context.tracker.table("preferences", compared_texts(held_out or [pair for _, pair in pairs]))
        longer = [float(len(p.chosen) > len(p.rejected)) + 0.5 * (len(p.chosen) == len(p.rejected)) for _, p in pairs]
        return {
            "pairs": float(len(pairs)),
            "validation_pairs": float(sum(split == "validation" for split, _ in pairs)),
            "chosen_characters": sum(len(p.chosen) for _, p in pairs) / max(1, len(pairs)),
            "rejected_characters": sum(len(p.rejected) for _, p in pairs) / max(1, len(pairs)),
            "chosen_longer": sum(longer) / max(1, len(pairs)),
        }
