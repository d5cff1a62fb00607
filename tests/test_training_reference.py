"""The reference is asked once: its log-probabilities are found again exactly where nothing that matters has changed."""

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_cases import adapted
from regimes import Counted, adam, context_in, loop, parameters, run
from test_training_offline import ChosenAnswers, FurtherThanTheReference

from alignlab.artifact import MANIFEST, Artifact, fingerprint
from alignlab.config.check import parse
from alignlab.data import preferences
from alignlab.errors import PipelineError
from alignlab.pipeline.plan import Step, plan
from alignlab.pipeline.run_folder import RunFolder
from alignlab.pipeline.runner import Runner
from alignlab.pipeline.store import Store
from alignlab.policy import Llama, LoRA, Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import tiny_policy, tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import PreferenceStage, reference

TRAINED, HELD_OUT = 16, 8
"""Sequences of the eight pairs to learn from, and of the four that are held out."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A policy, two references, and preferences; a change of each."""
    root = tmp_path_factory.mktemp("reference")
    policy = tiny_policy_artifact(root / "policy")
    template = tiny_policy()
    plain = str(template.tokenizer.chat_template)
    template.tokenizer.chat_template = plain.replace("{{ bos_token }}", "{{ bos_token }}tea ")
    (root / "template").mkdir()
    template.save(root / "template")
    tiny_policy_artifact(root / "other", seed=9)
    pairs = tiny_preferences_artifact(root / "preferences")
    rows = [
        preferences.row(pair, split) for split in ("train", "validation") for pair in preferences.read(pairs, split)
    ]
    (root / "one_more").mkdir()
    preferences.write(root / "one_more", [*rows, {**rows[0], "chosen": "rain"}])
    adapted(policy, root / "adapted")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def config(folders: Mapping[str, Path], **changes: Any) -> dict[str, Any]:
    """A DPO stage of six steps of four pairs; changes by keywords, `inputs` and `loop` key by key."""
    given = {"policy": "policy", "preferences": "preferences", **changes.pop("inputs", {})}
    own = {"_target_": "alignlab.training.Loop", "steps": 6, "batch_size": 4, **changes.pop("loop", {})}
    schedule = {"_target_": "alignlab.training.Constant"}
    return {
        "_target_": "alignlab.training.PreferenceStage",
        "objective": {"_target_": "alignlab_dpo.DPO", "beta": 0.1},
        "optimizer": {"_target_": "alignlab.training.AdamW", "lr": 1e-3, "schedule": schedule},
        "loop": own,
        "inputs": {name: str(folders[folder]) for name, folder in given.items()},
        **changes,
    }


def labelled(folders: Mapping[str, Path], **changes: Any) -> dict[str, Any]:
    """The same pairs as labelled answers, for KTO."""
    kind = {"_target_": "alignlab.training.LabelledStage", "objective": {"_target_": "alignlab_kto.KTO"}}
    return config(folders, **{**kind, **changes})


def planned(node: Mapping[str, Any], runtime: Runtime | None = None, **more: Any) -> list[Step]:
    return plan({"dpo": parse(dict(node), "pipeline.dpo")}, runtime or Runtime("cpu", threads=1), **more)


def ran(node: Mapping[str, Any], folder: Path, runtime: Runtime | None = None, **more: Any) -> Artifact:
    """What a run of the stage alone publishes, with the folder's store."""
    runtime = runtime or Runtime("cpu", threads=1)
    runner = Runner(planned(node, runtime, **more), Store(folder / "store"), RunFolder(folder / "run"), runtime)
    runner.run()
    return runner.artifacts["dpo"]


def entries(folder: Path) -> list[dict[str, Any]]:
    """Manifests of the log-probabilities in the folder's store."""
    found = [json.loads(f.read_text()) for f in sorted((folder / "store" / "objects").glob(f"*/{MANIFEST}"))]
    return [manifest for manifest in found if "reference_logp" in manifest.get("identity", {})]


# ---- when it is asked again ------------------------------------------------------------------------------------------
NOTHING_NEW = {
    "beta": {"objective": {"_target_": "alignlab_dpo.DPO", "beta": 0.5}},
    "objective": {"objective": {"_target_": "alignlab_dpo.IPO"}},
    "learning rate": {"optimizer": {"_target_": "alignlab.training.AdamW", "lr": 3e-4}},
    "steps": {"loop": {"steps": 5}},
    "batch size": {"loop": {"batch_size": 3}},
    "memory budget": {"loop": {"micro_batch_tokens": 64}},
    "seed": {"seed": 8},
    "a longer limit": {"max_length": 30},
    "skipping": {"on_bad_record": "skip"},
    "adapter": {"adapter": {"_target_": "alignlab.policy.LoRA", "r": 2}},
    "the same reference, named": {"inputs": {"reference": "policy"}},
}


@pytest.mark.parametrize("changes", NOTHING_NEW.values(), ids=NOTHING_NEW.keys())
def test_what_does_not_matter_does_not_ask_again(
    changes: Any, folders: dict[str, Path], tmp_path: Path, counted: Counted
) -> None:
    ran(config(folders), tmp_path)
    assert counted.measured == [TRAINED, HELD_OUT]
    ran(config(folders, **{"seed": 1, **changes}), tmp_path)
    assert counted.measured == [TRAINED, HELD_OUT] and len(entries(tmp_path)) == 2
    assert len(list((tmp_path / "store" / "objects").iterdir())) == 4, "the stage itself ran twice"


def test_it_is_asked_ahead_of_the_runs_that_need_it(folders: dict[str, Path], tmp_path: Path, counted: Counted) -> None:
    """As `alignlab prepare` does for a sweep: nothing is trained."""
    steps, store = planned(config(folders)), Store(tmp_path / "store")
    Runner(steps, store, RunFolder(tmp_path / "ahead"), Runtime("cpu", threads=1), parts=["dpo"]).run()
    assert counted.measured == [TRAINED, HELD_OUT] and len(entries(tmp_path)) == 2
    assert store.has_shared(steps[0].shared_recipe) and not store.has(steps[0].fingerprint)
    ran(config(folders, objective={"_target_": "alignlab_dpo.DPO", "beta": 0.5}), tmp_path)
    assert counted.measured == [TRAINED, HELD_OUT]


SOMETHING_NEW = {
    "reference": {"inputs": {"reference": "other"}},
    "policy, which is the reference": {"inputs": {"policy": "other"}},
    "rows": {"inputs": {"preferences": "one_more"}},
    "template": {"inputs": {"policy": "template", "reference": "policy"}},
    "truncation": {"max_length": 9},
    "adapter of the reference": {"inputs": {"policy": "adapted"}},
}


@pytest.mark.parametrize("changes", SOMETHING_NEW.values(), ids=SOMETHING_NEW.keys())
def test_what_matters_asks_again(changes: Any, folders: dict[str, Path], tmp_path: Path, counted: Counted) -> None:
    ran(config(folders), tmp_path)
    before = len(counted.measured)
    ran(config(folders, **changes), tmp_path)
    assert len(counted.measured) > before
    assert counted.measured[before] >= TRAINED


def test_precision_asks_again(folders: dict[str, Path], tmp_path: Path, counted: Counted) -> None:
    for number, precision in enumerate(("32-true", "64-true", "bf16-true", "bf16-mixed"), start=1):
        ran(config(folders), tmp_path, Runtime("cpu", threads=1, precision=precision))
        assert len(entries(tmp_path)) == 2 * number


def test_other_kernels_ask_again(folders: dict[str, Path], tmp_path: Path) -> None:
    """In bfloat16, a compiled model and a plain one differ by more than the last bits."""
    asked: list[Any] = []
    for compiled in (False, True):
        own = context_in(tmp_path, Runtime("cpu", threads=1, compile=compiled))

        def once(identity: Mapping[str, Any], build: Any) -> Path:
            asked.append(dict(identity))
            raise StopIteration

        context = StageContext(own.name, own.folder, own.work, own.runtime, own.tracker, store=once)
        with pytest.raises(StopIteration):
            ready(folders, context, GIVEN)
    plain, compiled_too = asked
    assert plain != compiled_too and {**plain, "kernels": ["cpu", True]} == compiled_too


def test_only_rows_that_changed_sides_are_asked_again(
    folders: dict[str, Path], tmp_path: Path, counted: Counted
) -> None:
    """Held-out rows are an entry of their own."""
    ran(config(folders), tmp_path)
    ran(config(folders, inputs={"preferences": "one_more"}), tmp_path)
    assert counted.measured == [TRAINED, HELD_OUT, TRAINED + 2]


def test_what_the_objective_reads_of_the_rows_matters(
    folders: dict[str, Path], tmp_path: Path, counted: Counted
) -> None:
    """KTO asks about each prompt with another answer, too; its weights change nothing."""
    ran(labelled(folders), tmp_path)
    assert counted.measured == [2 * TRAINED, 2 * HELD_OUT]
    ran(labelled(folders, objective={"_target_": "alignlab_kto.KTO", "beta": 0.3}), tmp_path)
    assert counted.measured == [2 * TRAINED, 2 * HELD_OUT]


def test_a_rerun_asks_again(folders: dict[str, Path], tmp_path: Path, counted: Counted) -> None:
    """It is for changes that no fingerprint covers."""
    ran(config(folders), tmp_path)
    ran(config(folders), tmp_path, rerun=["dpo"])
    assert counted.measured == [TRAINED, HELD_OUT] * 2


@pytest.mark.parametrize(("steps", "asked"), [(1, 3 * 2), (2, TRAINED)], ids=["fewer than half", "half"])
def test_a_run_that_visits_few_rows_asks_about_those(
    steps: int, asked: int, folders: dict[str, Path], tmp_path: Path, counted: Counted
) -> None:
    ran(config(folders, loop={"steps": steps, "batch_size": 3}), tmp_path)
    assert counted.measured == [asked, HELD_OUT]


def test_a_policy_that_the_stage_makes_is_known_by_its_weights(
    folders: dict[str, Path], tmp_path: Path, counted: Counted
) -> None:
    class FromScratch(ChosenAnswers):
        """Starts from random weights with the input's tokenizer."""

        def load_policy(self, inputs: Mapping[str, Artifact], context: StageContext) -> Policy:
            tokenizer = Policy.load(inputs["policy"]).tokenizer
            return Policy(Llama(layers=1, width=8, heads=2, feedforward=8).build(tokenizer, self.seed), tokenizer)

    given = {name: Artifact.open(folders[name]) for name in ("policy", "preferences")}
    for seed in (1, 1, 2):
        made = FromScratch(
            objective=FurtherThanTheReference(), optimizer=adam(), loop=loop(steps=2, batch_size=4), seed=seed
        )
        made.prepare(given, shared_context(tmp_path))
    assert len(counted.measured) == 4


def test_a_policy_that_the_stage_changes_as_it_loads_it_is_known_by_its_weights(
    folders: dict[str, Path], tmp_path: Path, counted: Counted
) -> None:
    class Louder(PreferenceStage):
        """Doubles the head before it is trained, so that its reference is not the folder's."""

        def load_trainable(self, artifact: Artifact, context: StageContext) -> Policy:
            found = super().load_trainable(artifact, context)
            found.model.get_output_embeddings().weight.data.mul_(2)
            return found

    plain = ready(folders, shared_context(tmp_path), GIVEN)
    louder = Louder(objective=plain.objective, optimizer=adam(), loop=loop(batch_size=4), seed=3)
    context = shared_context(tmp_path)
    louder.prepare({name: Artifact.open(folders[folder]) for name, folder in GIVEN.items()}, context)
    assert len(counted.measured) == 4
    batch = louder.batch_at(0)
    with torch.no_grad():
        now = louder.policy.eval().token_stats(batch, frozenset({"logp"})).logp
    assert torch.allclose(now, batch.reference_logp, rtol=0, atol=1e-6)


# ---- what it gives -------------------------------------------------------------------------------------------------
def shared_context(folder: Path, **more: Any) -> StageContext:
    """A context with a store in the folder."""
    own, store = context_in(folder, **more), Store(folder / "store")

    def once(identity: Mapping[str, Any], build: Callable[[Path, Path], None]) -> Path:
        def published(out: Path, work: Path) -> dict[str, Any]:
            build(out, work)
            return {"kind": "other"}

        return store.get_or_build(fingerprint(identity), published)[0].path

    return StageContext(own.name, own.folder, own.work, own.runtime, own.tracker, store=once)


def ready(folders: Mapping[str, Path], context: StageContext, given: Mapping[str, str], **more: Any) -> PreferenceStage:
    """A DPO stage that is prepared."""
    from alignlab_dpo import DPO

    made = PreferenceStage(objective=DPO(), optimizer=adam(), loop=loop(batch_size=4), seed=3, **more)
    made.context = context
    made.prepare({name: Artifact.open(folders[folder]) for name, folder in given.items()}, context)
    return made


GIVEN = {"policy": "policy", "preferences": "preferences"}


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true", "bf16-mixed"])
def test_found_or_computed_it_is_the_same_to_the_bit(precision: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    runtime = Runtime("cpu", threads=1, precision=precision)
    given = {**GIVEN, "reference": "other"}
    contexts = [
        context_in(tmp_path / "alone", runtime),
        *(shared_context(tmp_path, runtime=runtime) for _ in range(2)),
    ]
    alone, computed, found = (ready(folders, context, given) for context in contexts)
    for step in range(4):
        one, *others = (stage.batch_at(step).reference_logp for stage in (alone, computed, found))
        assert all(torch.equal(one, other) and one.dtype == other.dtype for other in others)


@pytest.mark.parametrize("adapter", [None, LoRA(r=2)], ids=["all weights", "adapter"])
@pytest.mark.parametrize("policy", ["policy", "adapted"])
def test_before_the_first_step_policy_and_reference_are_one(
    policy: str, adapter: LoRA | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    for _ in range(2):
        stage = ready(folders, shared_context(tmp_path), {**GIVEN, "policy": policy}, adapter=adapter)
        batch = stage.batch_at(0)
        with torch.no_grad():
            now = stage.policy.eval().token_stats(batch, frozenset({"logp"})).logp
        assert torch.allclose(now, batch.reference_logp, rtol=0, atol=1e-6)


def test_trained_weights_do_not_depend_on_where_the_reference_was_found(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """A second sweep finds what the first has computed; the same run without a store computes its own."""
    from alignlab_dpo import DPO

    inputs = {name: Artifact.open(folders[folder]) for name, folder in GIVEN.items()}
    weights = []
    for folder, shared in (("alone", False), ("first", True), ("second", True)):
        stage = PreferenceStage(objective=DPO(), optimizer=adam(1e-2), loop=loop(batch_size=4), seed=3)
        if shared:
            context = shared_context(tmp_path)
            stage.run(inputs, context)
        else:
            run(stage, inputs, tmp_path / folder)
        weights.append(parameters(stage))
    assert all(torch.equal(weights[0][k], other[k]) for other in weights[1:] for k in weights[0])


# ---- memory, processes, crashes --------------------------------------------------------------------------------------
def test_a_reference_is_gone_while_training_and_not_even_loaded_where_it_was_asked_before(
    folders: dict[str, Path], tmp_path: Path, counted: Counted
) -> None:
    given = {**GIVEN, "reference": "other"}
    before = {id(each) for each in gc.get_objects() if type(each) is Policy}  # other tests' own
    for loads in (2, 3):
        stage = ready(folders, shared_context(tmp_path), given)
        assert counted.loads == loads
        gc.collect()
        alive = [each for each in gc.get_objects() if type(each) is Policy and id(each) not in before]
        assert alive == [stage.policy]
        del alive, stage


def test_a_reference_with_another_vocabulary_is_refused_also_where_its_answers_are_there(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    context = shared_context(tmp_path)
    ready(folders, context, {**GIVEN, "reference": "other"})
    policy = tiny_policy()
    policy.tokenizer.add_tokens(["unheard"])
    policy.model.resize_token_embeddings(len(policy.tokenizer))
    (tmp_path / "larger").mkdir()
    policy.save(tmp_path / "larger")
    larger = {**folders, "larger": tmp_path / "larger"}
    with pytest.raises(PipelineError, match="its vocabulary differs"):
        ready(larger, context, {**GIVEN, "policy": "larger", "reference": "other"})


def test_an_interrupted_pass_continues_where_it_was(
    folders: dict[str, Path], tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_PORTION", 3)
    whole = ready(folders, context_in(tmp_path / "whole"), GIVEN).batch_at(0).reference_logp
    counted.measured.clear()
    context = shared_context(tmp_path)
    progress = type(context.tracker).progress

    def dies(self: Any, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if done == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(type(context.tracker), "progress", dies)
    with pytest.raises(KeyboardInterrupt):
        ready(folders, context, GIVEN)
    assert counted.measured == [6, 6]
    monkeypatch.setattr(type(context.tracker), "progress", progress)
    stage = ready(folders, context, GIVEN)
    assert counted.measured == [6, 6, 4, 6, 2], "the rest of the rows, and those that are held out"
    assert torch.equal(stage.batch_at(0).reference_logp, whole)


@pytest.mark.parametrize("left", [b"", b"\0" * 200], ids=["nothing", "zeros"])
def test_what_an_interrupted_pass_left_damaged_is_asked_again(
    left: bytes, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that loses power may leave a file's name without its content."""
    monkeypatch.setattr(reference, "_PORTION", 3)
    whole = ready(folders, context_in(tmp_path / "whole"), GIVEN).batch_at(0).reference_logp
    context = shared_context(tmp_path)

    def dies(self: Any, done: int, total: int, metrics: Mapping[str, float]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(type(context.tracker), "progress", dies)
        ready(folders, context, GIVEN)
    (portion,) = (tmp_path / "store" / "work").glob("*/*.npy")
    portion.write_bytes(left)
    assert torch.equal(ready(folders, context, GIVEN).batch_at(0).reference_logp, whole)


def test_two_at_once_ask_once(folders: dict[str, Path], tmp_path: Path, counted: Counted) -> None:
    """Locks are on files, so that threads stand for processes."""
    contexts = [shared_context(tmp_path / name) for name in ("a", "b")]
    store = shared_context(tmp_path).store
    both = [StageContext(c.name, c.folder, c.work, c.runtime, c.tracker, store=store) for c in contexts]
    threads = [threading.Thread(target=ready, args=(folders, context, GIVEN)) for context in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.measured == [TRAINED, HELD_OUT]


# ---- the plan --------------------------------------------------------------------------------------------------------
def test_the_plan_knows_whether_the_store_has_it(folders: dict[str, Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def known(**changes: Any) -> bool:
        return store.has_shared(planned(config(folders, **changes))[0].shared_recipe)

    assert not known()
    ran(config(folders), tmp_path)
    assert known() and known(objective={"_target_": "alignlab_dpo.IPO"}) and known(loop={"micro_batch_tokens": 64})
    assert not known(inputs={"reference": "other"}) and not known(max_length=9)
    simpo = {"objective": {"_target_": "alignlab_simpo.SimPO"}}
    assert planned(config(folders, **simpo))[0].shares is None


def test_the_command_shows_it(folders: dict[str, Path], tmp_path: Path) -> None:
    own = [f"stage.inputs.{name}={folders[folder]}" for name, folder in GIVEN.items()]
    asked = ["experiment=train", "stage=dpo", *own, f"store_dir={tmp_path / 'store'}"]

    def shown(*more: str) -> str:
        command = [sys.executable, "-m", "alignlab", "plan", *asked, *more]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    lines = [line.split() for line in shown().splitlines()]
    (row,) = (line for line in lines if line[:1] == ["reference_logp"])
    assert row[1] == "missing"
    found = json.loads(shown("--json"))["stages"][0]["shares"]
    assert found["name"] == "reference_logp" and not found["cached"]
    assert json.loads(shown("--json", "stage.objective=simpo"))["stages"][0]["shares"] is None
