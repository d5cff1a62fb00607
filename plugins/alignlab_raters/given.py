"""StyleOfAnswers: the style of answers that are given, a file's or another stage's."""

from collections.abc import Mapping
from typing import ClassVar

from alignlab.artifact import Artifact, Kind
from alignlab.data import answers
from alignlab.data.records import Example
from alignlab.data.source import DataSource, Need, Part, splits_of
from alignlab.data.world import World
from alignlab.errors import DataError
from alignlab.evaluation import defined
from alignlab.metrics import with_intervals, write_columns, write_outcomes
from alignlab.samples import write_samples
from alignlab.stage import Stage, StageContext
from alignlab_raters.features import features
from alignlab_raters.style import SEEN, diversity, profile_columns, style


class StyleOfAnswers(Stage):
    """Measure the style of given answers, and their diversity where a prompt has several: a file's, or a stage's.

    The features are those of `StyleEvaluation`, so that what people wrote is compared with what a model says.

    Args:
        data: gives answered instructions, where there is no input `answers`.
        name: begins the name of every metric.
        knowledge: the embedded world, by whose grammar style is read; null reads any text.
        split: the part that is measured.
        limit: at most so many answers, the first ones; null takes all.
        inputs: `answers`, that another stage wrote.
        seed: stands in the configuration only; nothing is random.
        table_rows: rows of the table that goes to the tracker.
    """

    VERSION: ClassVar[str] = "1"
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"answers": frozenset({"answers"})}
    PRODUCES: ClassVar[Kind] = "other"

    def __init__(
        self,
        *,
        data: DataSource | None = None,
        name: str = "profile",
        knowledge: World | None = None,
        split: Part = "all",
        limit: int | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        table_rows: int = 8,
    ) -> None:
        super().__init__(inputs, seed)
        for key, value, least in (("limit", limit, 1), ("table_rows", table_rows, 0)):
            if value is not None and value < least:
                raise ValueError(f"StyleOfAnswers: {key} must be >= {least}, got {value}")
        self.data, self.name, self.knowledge = data, name, knowledge
        self.split, self.limit, self.table_rows = split, limit, table_rows

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse to read nothing."""
        super().check_inputs(names)
        if self.data is None and "answers" not in names:
            raise ValueError("StyleOfAnswers: there are no answers; set data, or inputs.answers to a stage or folder")

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Answered instructions, where no stage gives them."""
        if self.data is None or "answers" in self.inputs:
            return []
        return [(self.data, Need("instructions", held_out=self.split == "validation"))]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Read every answer.

        Raises:
            DataError: there is none.
        """
        given = self._examples(inputs)[: self.limit]
        if not given:
            raise DataError(f"{context.name}: there are no answers of the {self.split} part to read")
        prompts, texts = [e.prompt for e in given], [e.answer for e in given]
        seen = [features(prompt, text, self.knowledge) for prompt, text in zip(prompts, texts, strict=True)]
        found = defined({**style(prompts, seen), **diversity(prompts, texts)})
        metrics = {f"{self.name}_{key}": value for key, value in found.items()}
        rows = [_row(example, own) for example, own in zip(given, seen, strict=True)]
        write_samples(context.folder, rows)
        write_columns(context.folder, profile_columns(self.name))
        write_outcomes(context.folder, metrics)
        context.tracker.table("answers", rows[: self.table_rows])
        return with_intervals(metrics)

    def _examples(self, inputs: Mapping[str, Artifact]) -> list[Example]:
        splits = splits_of(self.split)
        if "answers" in inputs:
            return [example for split in splits for example in answers.read(inputs["answers"], split)]
        assert self.data is not None, "see check_inputs"
        return [example for split in splits for example in self.data.instructions(split)]


def _row(example: Example, seen: Mapping[str, float]) -> dict[str, object]:
    return {"prompt": example.prompt.text, "answer": example.answer, **{key: seen[key] for key in SEEN}}
