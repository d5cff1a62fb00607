"""Column: the description of a metric, for tables, charts and readers."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from alignlab.errors import ConfigError


@dataclass(frozen=True)
class Column:
    """One metric, declared by the class that measures it.

    Args:
        metric: its name in metrics.json.
        meaning: one sentence for a reader who has not seen the code.
        title: for a table; by default the name with blanks for underscores, so that a metric has one name everywhere.
        long: title where there is room; by default the title.
        unit: of the number ("words", "nats per token"); empty for a share.
        better: 1 where more is better, -1 where less is, 0 where neither is.
        share: whether it is a number from 0 to 1.
        headline: whether it is always in the table; others are where nothing moved more.
        only_if: a share (0 to 1) without which the number means nothing: where a model's is below 0.1, no other model
            is compared with it. A base model that follows no instruction gives few answers that could be hedged.
        argument: dotted path of the evaluation's argument that this metric alone depends on ("rewards.true_taste");
            two models for which it differs are not compared.
        reference: name of what the metric is measured by, where that can differ from run to run.
    """

    metric: str
    meaning: str
    title: str = ""
    long: str = ""
    unit: str = ""
    better: int = 0
    share: bool = False
    headline: bool = False
    only_if: str = ""
    argument: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        if not self.metric or self.metric != self.metric.strip() or "/" in self.metric:
            raise ValueError(f"Column: {self.metric!r} is not the name of a metric; it is not empty and has no slash")
        if not self.meaning:
            raise ValueError(f"Column {self.metric}: meaning is empty; say in one sentence what the number is")
        if self.better not in (-1, 0, 1):
            raise ValueError(f"Column {self.metric}: better must be 1, -1 or 0, got {self.better!r}")
        object.__setattr__(self, "title", self.title or self.metric.replace("_", " "))
        object.__setattr__(self, "long", self.long or self.title)

    def to_json(self) -> dict[str, Any]:
        """Plain values, by field."""
        return asdict(self)

    @classmethod
    def from_json(cls, node: Any, where: str) -> "Column":
        """The column that `to_json` wrote.

        Raises:
            ConfigError: it is not one.
        """
        known = {f.name for f in fields(cls)}
        try:
            return cls(**{k: v for k, v in node.items() if k in known})
        except (AttributeError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {node!r} describes no metric ({error})") from error
