"""The offline regime as a stranger uses it: a stage of one's own in a few lines, references, what is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_dpo import DPO
from alignlab_grpo import Reinforce
from alignlab_kto import KTO
from alignlab_sft import AnswerNLL
from alignlab_simpo import SimPO
from regimes import Counted, adam, killed_before, loop, parameters, prepared, run
from torch import Tensor

from alignlab.artifact import Artifact, Kind
from alignlab.batch import Batch, TokenBatch
from alignlab.data import preferences
from alignlab.data.chat import encode_answer
from alignlab.data.records import Comparison
from alignlab.data.rows import Row, order_at, token_batch
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import PipelineError
from alignlab.objective import Loss, Objective, WeightedSum, Wrapped, log_ratio, sequences
from alignlab.policy import Llama, Policy
from alignlab.stage import StageContext
from alignlab.stats import TokenStats
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import OfflineStage, PreferenceStage


# ---- what a stranger writes -----------------------------------------------------------------------------------------
class ChosenAnswers(OfflineStage[TokenBatch, Comparison]):
    """Train on the chosen answers of pairs, each weighted by the words that its rejected one has."""

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **OfflineStage.INPUTS,
        "preferences": frozenset({"preferences"}),
    }

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[list[Comparison], list[Comparison]]:
        train, held_out = (preferences.read(inputs["preferences"], split) for split in ("train", "validation"))
        return train, held_out

    def batch_of(self, units: Sequence[Comparison]) -> TokenBatch:
        rows = [Row(*encode_answer(self.policy.tokenizer, u.prompt, u.chosen), u.source) for u in units]
        weight = torch.tensor([float(len(u.rejected.split())) for u in units])
        return replace(token_batch(rows), weight=weight)


@dataclass(frozen=True)
class FurtherThanTheReference(Objective[Batch]):
    """Mean over sequences of minus their log-ratio to the reference, in nats."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    per = {"loss": sequences}

    def __call__(self, stats: TokenStats, batch: Batch) -> Loss:
        return self.loss(batch, loss=-log_ratio(stats, batch))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("offline")
    return {
        "policy": tiny_policy_artifact(folder / "policy"),
        "preferences": tiny_preferences_artifact(folder / "preferences"),
        "reference": tiny_policy_artifact(folder / "reference", seed=9),
    }


def without_reference(inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    return {k: v for k, v in inputs.items() if k != "reference"}


def stage(objective: Any = None, kind: Any = ChosenAnswers, **changes: Any) -> Any:
    own = {"steps": 4, "batch_size": 3, "validate_every": 4, **changes}
    return kind(objective=objective or AnswerNLL(), optimizer=adam(3e-3), loop=loop(**own), seed=3)


def test_each_step_has_the_units_that_its_number_says(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ready = prepared(stage(), without_reference(inputs), tmp_path)
    pairs = preferences.read(inputs["preferences"], "train")
    for step in range(4):
        batch, picked = ready.batch_at(step), [pairs[i] for i in order_at(step, len(pairs), 3, 3)]
        assert batch.names == tuple(p.source for p in picked)
        assert batch.weight.tolist() == [len(p.rejected.split()) for p in picked]
    held_out = preferences.read(inputs["preferences"], "validation")
    assert [n for b in ready.validation_batches() for n in b.names] == [p.source for p in held_out]


def test_it_trains_is_validated_and_publishes_a_policy(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    trained = stage(steps=12, validate_every=4)
    metrics, seen = run(trained, without_reference(inputs), tmp_path)
    assert seen.values("train/loss")[-1] < seen.values("train/loss")[0] - 0.5
    assert len(seen.values("validation/loss")) == 3 and metrics["steps"] == 12
    published = dict(Policy.load(tmp_path / "out").named_parameters(prefix="policy"))
    assert all(torch.equal(v, published[k]) for k, v in parameters(trained).items())


@pytest.mark.parametrize("dies_before", [1, 3])
def test_killed_it_continues_to_the_same_bits(dies_before: int, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    given = without_reference(inputs)
    objective = FurtherThanTheReference()
    whole, resumed = stage(objective), stage(objective, save_every=1)
    metrics, _ = run(whole, given, tmp_path / "whole")
    killed_before(dies_before, stage(objective, save_every=1), given, tmp_path / "killed")
    again, _ = run(resumed, given, tmp_path / "killed")
    assert again == metrics
    assert all(torch.equal(v, parameters(resumed)[k]) for k, v in parameters(whole).items())


def test_a_policy_may_come_from_elsewhere(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    class FromScratch(ChosenAnswers):
        """Starts from random weights with the input's tokenizer."""

        VERSION: ClassVar[str] = "1"

        def load_policy(self, inputs: Mapping[str, Artifact], context: StageContext) -> Policy:
            tokenizer = Policy.load(inputs["policy"]).tokenizer
            return Policy(Llama(layers=1, width=8, heads=2, feedforward=8).build(tokenizer, 0), tokenizer)

    ready = prepared(stage(kind=FromScratch), without_reference(inputs), tmp_path)
    assert ready.policy.model.config.hidden_size == 8


# ---- the reference --------------------------------------------------------------------------------------------------
@torch.no_grad()
def logp_of(artifact: Artifact, batch: Batch) -> Tensor:
    return Policy.load(artifact).token_stats(batch, frozenset({"logp"})).logp


@pytest.mark.parametrize("given", ["policy", "reference"])
def test_the_reference_is_the_input_or_the_policy_as_it_was_also_once_that_has_moved(
    given: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    trained = stage(FurtherThanTheReference())
    run(trained, inputs if given == "reference" else without_reference(inputs), tmp_path)
    for batch in [*(trained.batch_at(k) for k in range(4)), *trained.validation_batches()]:
        assert torch.allclose(batch.reference_logp, logp_of(inputs[given], batch), atol=1e-5)
    with torch.no_grad():
        moved = trained.policy.token_stats(batch, frozenset({"logp"})).logp
    assert float((moved - logp_of(inputs["policy"], batch)).abs().max()) > 0.1


@pytest.mark.parametrize("kind", [ChosenAnswers, PreferenceStage])
def test_no_reference_is_loaded_or_asked_where_none_is_read(
    kind: Any, inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = SimPO() if kind is PreferenceStage else AnswerNLL()
    counted = Counted(monkeypatch)
    ready = prepared(stage(objective, kind), without_reference(inputs), tmp_path)
    assert (counted.loads, counted.measured) == (1, [])
    assert "reference_logp" not in ready.batch_at(0).per_token


@pytest.mark.parametrize(
    ("objective", "kind"), [(SimPO(), PreferenceStage), (AnswerNLL(), ChosenAnswers)], ids=["simpo", "answer_nll"]
)
def test_a_reference_that_nobody_reads_is_refused(objective: Any, kind: Any, inputs: dict[str, Artifact]) -> None:
    its, mine = type(objective).__name__, kind.__name__
    with pytest.raises(ValueError, match=rf"{mine}: {its} does not use inputs\.reference; remove it"):
        stage(objective, kind).check_inputs(frozenset(inputs))
    stage(DPO(), PreferenceStage).check_inputs(frozenset(inputs))


def test_a_reference_with_another_vocabulary_is_refused(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    words = TrainTokenizer("word", 50).train(["a b c d e f g h"])
    (tmp_path / "foreign").mkdir()
    Policy(Llama(layers=1, width=16, heads=2, feedforward=16).build(words, 0), words).save(tmp_path / "foreign")
    given = {**inputs, "reference": Artifact.open(tmp_path / "foreign")}
    with pytest.raises(PipelineError, match=r"regime\.inputs\.reference: its vocabulary differs from the policy's"):
        run(stage(DPO(), PreferenceStage), given, tmp_path)


# ---- objectives that do not fit -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("objective", "kind", "message"),
    [
        (DPO(), ChosenAnswers, "DPO takes a PreferenceBatch, but ChosenAnswers trains on a TokenBatch; choose another"),
        (AnswerNLL(), PreferenceStage, "AnswerNLL takes a TokenBatch, but PreferenceStage trains on a PreferenceBatch"),
        (
            KTO(),
            PreferenceStage,
            "KTO reads desirable, mismatched, but the batches of PreferenceStage carry agreement,",
        ),
        (
            Reinforce(),
            ChosenAnswers,
            "Reinforce reads advantage, but the batches of ChosenAnswers carry reference_logp",
        ),
        (Wrapped(DPO()), ChosenAnswers, "Wrapped takes a PreferenceBatch, but ChosenAnswers"),
        (WeightedSum({"a": AnswerNLL(), "b": AnswerNLL()}), PreferenceStage, "WeightedSum takes a TokenBatch, but"),
    ],
    ids=["dpo", "answer_nll", "kto", "reinforce", "wrapped", "sum"],
)
def test_an_objective_that_could_not_read_the_batches_is_refused_at_construction(
    objective: Any, kind: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stage(objective, kind)


def test_an_objective_on_any_batch_fits_every_regime() -> None:
    for kind in (ChosenAnswers, PreferenceStage):
        assert stage(FurtherThanTheReference(), kind).objective.takes is Batch
    both = WeightedSum({"far": FurtherThanTheReference(), "pairs": DPO()}, {"far": 0.1})
    assert stage(both, PreferenceStage).objective.reads == {"reference_logp"}
