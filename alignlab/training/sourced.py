"""SourcedStage: the base of regimes whose records are the data's own, or another stage's."""

from collections.abc import Mapping
from typing import ClassVar, Generic, Literal, TypeVar

from alignlab.batch import Batch
from alignlab.data.rows import check_max_length
from alignlab.data.source import DataSource, Need, Records
from alignlab.objective import Objective
from alignlab.policy import LoRA
from alignlab.training.loop import Loop
from alignlab.training.mixed_in import MixedIn
from alignlab.training.offline import OfflineStage
from alignlab.training.optimizer import OptimizerSpec

B = TypeVar("B", bound=Batch)
U = TypeVar("U")


class SourcedStage(OfflineStage[B, U], Generic[B, U]):
    """Train on records that `data` has, or that an optional input holds.

    Args:
        data: gives the records where the input `SOURCE` is not given.
        max_length: longest sequence in tokens; null takes the model's context.
        on_bad_record: a record with an answer that is cut away as a whole stops the stage, or is left out and counted
            ("skip").
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = OfflineStage.NOT_IDENTITY | {"on_bad_record"}
    DROPOUT: ClassVar[bool] = False
    SOURCE: ClassVar[str]
    """Name of the input that takes the place of the data's records, and of what is in it."""
    RECORDS: ClassVar[Records]
    """Records asked of the data where that input is not given."""
    CALLED: ClassVar[str]
    """Name of the records in an error."""

    def __init__(
        self,
        *,
        objective: Objective[B],
        optimizer: OptimizerSpec,
        loop: Loop,
        data: DataSource | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        max_length: int | None = None,
        on_bad_record: Literal["stop", "skip"] = "stop",
        mixed_in: Mapping[str, MixedIn] | None = None,
        adapter: LoRA | None = None,
    ) -> None:
        super().__init__(
            inputs=inputs,
            seed=seed,
            objective=objective,
            optimizer=optimizer,
            loop=loop,
            mixed_in=mixed_in,
            adapter=adapter,
        )
        check_max_length(type(self).__name__, max_length)
        self.data = data
        self.max_length = max_length
        self.on_bad_record = on_bad_record

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse to train on nothing."""
        super().check_inputs(names)
        if self.data is None and self.SOURCE not in names:
            raise ValueError(
                f"{type(self).__name__}: there are no {self.CALLED}; set data to a source that has some, or "
                f"inputs.{self.SOURCE} to a stage or folder with {self.SOURCE}"
            )

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """The data's records, where no other stage gives them."""
        if self.data is None or self.SOURCE in self.inputs:
            return self.mixed_needs()
        return [(self.data, Need(self.RECORDS, max_length=self.max_length)), *self.mixed_needs()]
