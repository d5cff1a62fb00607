"""The configuration: how overrides are rewritten, what the final check finds, what `_target_` may name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_plugins import FAKES, declare, write_package
from omegaconf import OmegaConf

from alignlab.config import compose, plugins, replaced
from alignlab.config.build import Builder, locate
from alignlab.config.overrides import rewrite
from alignlab.errors import ConfigError

CATALOG = {
    "experiment": ["lifecycle", "train"],
    "stage": ["dpo", "sft"],
    "objective": ["dpo", "ipo"],
    "data": ["files", "world"],
}
TOP = ["experiment", "stage", "data"]


@pytest.fixture
def fakes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(declare(tmp_path_factory.mktemp("installed"), "fakes", "lab_fakes"))
    monkeypatch.syspath_prepend(FAKES)
    yield


def checked(*overrides: str) -> compose.Experiment:
    """As the command does it."""
    with compose.hydra_session():
        cfg, stage = compose.composed(compose.rewritten(overrides, []))
        return compose.check(cfg, stage)


# ---- overrides -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("pipeline.dpo.objective=ipo", "objective@pipeline.dpo.objective=ipo"),
        ("pipeline.dpo.objective=dpo,ipo", "objective@pipeline.dpo.objective=dpo,ipo"),
        ("pipeline.dpo.objective=choice(dpo,ipo)", "objective@pipeline.dpo.objective=choice(dpo,ipo)"),
        ("pipeline.dpo.objective=glob(*)", "objective@pipeline.dpo.objective=glob(*)"),
        ("pipeline.dpo.objective='ipo'", "objective@pipeline.dpo.objective='ipo'"),
        ("pipeline.more=dpo", "stage@pipeline.more=dpo"),
        ("+pipeline.more=dpo", "+stage@pipeline.more=dpo"),
        ("pipeline.label.panel.objective=ipo", "objective@pipeline.label.panel.objective=ipo"),
        ("pipeline.dpo.objective.beta=0.05", "++pipeline.dpo.objective.beta=0.05"),
        ("pipeline.dpo.objective.beta=0.05,0.1", "++pipeline.dpo.objective.beta=0.05,0.1"),
        ("+pipeline.dpo.objective.betta=1", "++pipeline.dpo.objective.betta=1"),
        ("pipeline.dpo.objective=ippo", "++pipeline.dpo.objective=ippo"),
        ("pipeline.dpo.objective=dpo,ippo", "++pipeline.dpo.objective=dpo,ippo"),
        ("~pipeline.ppo", "~pipeline.ppo"),
        ("data=files", "data=files"),
        ("data.entities=3", "++data.entities=3"),
        ("seed=range(3)", "++seed=range(3)"),
        ("objective@pipeline.dpo.objective=ipo", "objective@pipeline.dpo.objective=ipo"),
        ("hydra.run.dir=here", "hydra.run.dir=here"),
        ("hydra/launcher=joblib", "hydra/launcher=joblib"),
    ],
)
def test_an_option_selects_and_a_value_sets(typed: str, becomes: str) -> None:
    assert rewrite([typed], CATALOG, TOP) == [becomes]


def test_a_part_of_a_single_stage_needs_no_path() -> None:
    given = ["experiment=train", "stage=dpo", "objective=ipo", "stage.inputs.policy=there"]
    assert rewrite(given, CATALOG, TOP)[2:] == ["objective@stage.objective=ipo", "++stage.inputs.policy=there"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("objective=ipo", r"say for which stage, as in pipeline\.NAME\.objective=ipo"),
        ("data=null", r"data=null: no such option"),
        ("objective=ippo", r"objective=ippo: no such option; objective has dpo, ipo; did you mean ipo\?"),
        ("experiment=lifecicle", r"no such option; experiment has lifecycle, train; did you mean lifecycle\?"),
        ("data=world,fils", r"data=fils: no such option"),
        ("a=[", "cannot read an override"),
    ],
)
def test_an_override_that_cannot_be_meant_is_refused(typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rewrite([typed], CATALOG, TOP)


# ---- the final check -------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("fakes")
def test_a_good_configuration_passes() -> None:
    found = checked("experiment=fake", "pipeline.tuned.objective=counting", "pipeline.tuned.objective.limit=3")
    assert found.name == "fake"
    assert found.pipeline["tuned"]["objective"] == {"_target_": "lab_fakes.Counting", "beta": 0.2, "limit": 3}


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pipeline.tuned.objective.betta=0.1", r"pipeline\.tuned\.objective\.betta: Weighing takes beta, not betta"),
        ("+pipeline.tuned.objective.betta=0.1", r"pipeline\.tuned\.objective\.betta: Weighing takes beta, not betta"),
        ("++pipeline.tuned.zzz=0.1", r"pipeline\.tuned\.zzz: Make takes no zzz; it takes size, objective, workers"),
        ("pipeline.tuned.objective.beta=big", r"pipeline\.tuned\.objective\.beta: Weighing takes a float, not 'big'"),
        ("pipeline.tuned.size=1.5", r"pipeline\.tuned\.size: Make takes an int, not 1\.5"),
        ("pipeline.tuned.size=true", r"pipeline\.tuned\.size: Make takes an int, not true"),
        ("pipeline.tuned.size=null", r"pipeline\.tuned\.size: Make takes an int, not null"),
        ("pipeline.tuned.objective.kind=sof", r"takes 'soft' or 'hard', not 'sof'"),
        ("pipeline.tuned.objective.betas=[0.9]", r"takes tuple\[float, float\], not \[0\.9\]"),
        ("pipeline.tuned.objective.limit=x", r"takes an int or null, not 'x'"),
        ("pipeline.tuned.objective=weighin", r"takes a Weighing or null, not 'weighin'; options .*weighing\?"),
        ("pipeline.tuned.objective._partial_=true", r"_partial_: alignlab does not take _partial_"),
        ("pipeline.tuned.inputs.policy=3", r"pipeline\.tuned\.inputs\.policy: Make takes a str, not 3"),
        ("pipeline.tuned.objective._target_=lab_fakes.Hidden", r"Make takes a Weighing, not Hidden"),
        ("~pipeline.tuned.size", r"pipeline\.tuned\.size: Make needs it; set pipeline\.tuned\.size="),
        ("pipeline.tunde.objective.beta=1", r"pipeline\.tunde: is not a stage, it has no `_target_`"),
        ("+pipeline.x._target_=lab_fakes.Hidden", r"pipeline\.x: Hidden is not a Stage"),
        ("pipeline.tuned.size=???", r"pipeline\.tuned\.size: needs a value; set pipeline\.tuned\.size=\.\.\."),
        ("pipeline.tuned.size=${nothing}", r"nothing"),
        ("sede=1", r"sede: no such key; .* did you mean seed\?"),
        ("seed=x", r"seed: expected int, got 'x'"),
        ("pipeline=3", r"pipeline: expected stages by name, got 3"),
        ("runtime.precison=64-true", r"runtime\.precison: Runtime takes precision, not precison"),
        ("runtime=null", r"runtime=null: no such option; runtime has auto"),
        ("stage=make", r"stage=make stands beside a pipeline"),
    ],
)
def test_what_is_wrong_is_named_with_its_whole_path(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked("experiment=fake", override)


@pytest.mark.usefixtures("fakes")
def test_a_typo_in_a_file_is_found(tmp_path: Path) -> None:
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\ndefaults: [fake]\nname: mine\npipeline: {base: {sise: 3}}\n")
    with compose.hydra_session([tmp_path / "conf"]):
        cfg, stage = compose.composed(["experiment=mine"])
        with pytest.raises(ConfigError, match=r"pipeline\.base\.sise: Make takes size, not sise"):
            compose.check(cfg, stage)


@pytest.mark.usefixtures("fakes")
def test_all_problems_are_listed_at_once_and_those_of_shared_nodes_once() -> None:
    with pytest.raises(ConfigError) as caught:
        checked("experiment=fake", "sede=1", "pipeline.base.sise=2", "pipeline.label.see=3", "seed=x")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "sede",
        "seed",
        "pipeline.label.see",
        "pipeline.base.sise",
    ]


@pytest.mark.usefixtures("fakes")
def test_a_single_stage_is_a_pipeline_named_after_its_option() -> None:
    found = checked("experiment=train", "stage=make", "objective=counting", "stage.size=4")
    assert list(found.pipeline) == ["make"]
    assert found.pipeline["make"]["objective"]["_target_"] == "lab_fakes.Counting"
    with pytest.raises(ConfigError, match="nothing to run: choose experiment="):
        checked("experiment=train")


# ---- targets ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "os.system",
        "builtins.eval",
        "functools.partial",
        "pathlib.Path",
        "alignlab.store.os.system",
        "alignlab.store.Path",
        "alignlab.artifact.digest_of_folder",
        "alignlab.nothing.There",
        "alignlab",
        "alignlabx.Thing",
        "os.path.join; import os",
        "",
        None,
        3,
    ],
)
def test_only_classes_of_alignlab_and_its_plugins_can_be_built(target: Any) -> None:
    with pytest.raises(ConfigError, match=r"^pipeline\.x\._target_: "):
        locate(target, "pipeline.x")
    with pytest.raises(ConfigError):
        Builder().build({"a": [{"_target_": target}]}, "pipeline.x")


def test_a_refused_target_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"trap\.Door is refused"):
        locate("trap.Door", "x")


@pytest.mark.usefixtures("fakes")
def test_a_plugins_class_can_be_built_and_lists_become_tuples() -> None:
    built = Builder().build({"_target_": "lab_fakes.Weighing", "beta": 1, "betas": [0.5, 1]}, "x")
    assert (type(built).__name__, built.beta, built.betas) == ("Weighing", 1.0, (0.5, 1.0))
    assert isinstance(built.beta, float) and isinstance(built.betas[1], float)


def test_sources_configured_alike_are_one_object() -> None:
    node = {"_target_": "alignlab.data.world.World", "seed": 3}
    build = Builder().build
    first, second = build({"a": node, "b": {**node}}, "x").values()
    assert first is second
    assert build({**node, "seed": 4}, "x") is not first


# ---- plugins ---------------------------------------------------------------------------------------------------------
def test_our_own_plugins_are_installed() -> None:
    found = {p.name: p.package for p in plugins.installed()}
    assert found.items() >= {(n, f"alignlab_{n}") for n in ("dpo", "ppo", "pretrain", "raters", "reward_model", "sft")}


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (None, r"plugin odd \(package odd_lab of odd 1\.0\) has no importable __init__\.py"),
        ("", r"plugin odd .* states no contract; write CONTRACT = 2"),
        ("CONTRACT = 0", r"plugin odd .* was written for contract 0, .* update the plugin"),
        ("CONTRACT: int = 3", r"plugin odd .* was written for contract 3, .* update alignlab"),
        ("CONTRACT = (", r"plugin odd .* cannot be read"),
    ],
)
def test_a_plugin_that_does_not_fit_is_named(
    init: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(declare(tmp_path, "odd", "odd_lab"))
    if init is not None:
        write_package(tmp_path, "odd_lab", init)
    with pytest.raises(ConfigError, match=message):
        plugins.installed()


def test_a_plugin_that_fails_to_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(declare(tmp_path, "odd", "odd_lab_broken"))
    write_package(tmp_path, "odd_lab_broken", "CONTRACT = 2\nimport nowhere_to_be_found\n")
    with pytest.raises(ConfigError, match=r"plugin odd .* fails to import: ModuleNotFoundError: .*nowhere_to_be_found"):
        plugins.load_all()


def test_two_packages_with_the_same_option_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(declare(tmp_path, "odd", "odd_lab_twin"))
    write_package(tmp_path, "odd_lab_twin", objective__dpo="beta: 1\n")
    with pytest.raises(ConfigError, match=r"alignlab_dpo and odd_lab_twin both ship objective/dpo\.yaml"):
        plugins.options()


def test_every_option_is_yaml_with_a_sentence_at_its_head() -> None:
    for option in plugins.options():
        assert option.read() is not None
        if option.group and not option.group.startswith("hydra"):
            assert option.summary().endswith("."), option.file


def test_every_option_composes_and_its_class_is_there() -> None:
    found = [o for o in plugins.options() if o.group and o.group.split("/")[0] not in ("hydra", "experiment")]
    probes = [f"+{o.group}@probe.{o.group}_{o.name}={o.name}" for o in found]
    with compose.hydra_session():
        cfg, _ = compose.composed(probes)
    for option in found:
        node = cfg.probe[f"{option.group}_{option.name}"]
        assert issubclass(locate(node._target_, option.file.name), object)


FILES = ["data.corpus=a.txt", "data.instructions=b.jsonl", "data.preferences=c.jsonl"]


@pytest.mark.parametrize(
    "overrides",
    [["experiment=lifecycle"], ["experiment=smoke"], ["experiment=lifecycle_files", *FILES]],
    ids=lambda o: o[0].partition("=")[2],
)
def test_every_experiment_passes_the_final_check(overrides: list[str]) -> None:
    assert {"pretrain", "sft", "dpo", "ppo", "report"} <= checked(*overrides).pipeline.keys()


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward_model", "dpo", "ppo", "label"])
def test_every_stage_can_be_trained_alone(stage: str) -> None:
    inputs = [f"stage.inputs.{name}=folder" for name in ("policy", "preferences", "reward")]
    assert list(checked("experiment=train", f"stage={stage}", *inputs).pipeline) == [stage]


# ---- options chosen over an experiment's ---------------------------------------------------------------------------
def settled(*typed: str) -> dict[str, Any]:
    """The configuration of one job, with what the command chose in it."""
    with compose.hydra_session():
        overrides = compose.rewritten(typed, [])
        cfg, _ = compose.composed(overrides)
        found: Any = OmegaConf.to_container(replaced.drop_settings_of_replaced(cfg, overrides, []))
        return dict(found["pipeline"])


def test_a_replaced_option_takes_nothing_over_from_the_one_that_it_replaces() -> None:
    """The experiment tunes DPO's beta; IPO has none, and another objective's would mean something else."""
    assert settled("experiment=lifecycle")["dpo"]["objective"]["beta"] == 0.5
    ipo = settled("experiment=lifecycle", "pipeline.dpo.objective=ipo")["dpo"]
    assert ipo["objective"] == {"_target_": "alignlab_dpo.IPO", "tau": 0.1}
    assert ipo["inputs"] == {"policy": "sft", "preferences": "label"}, "all else stays"


def test_what_the_command_says_below_a_replaced_option_stands() -> None:
    ipo = settled("experiment=lifecycle", "pipeline.dpo.objective.tau=0.3", "pipeline.dpo.objective=ipo")["dpo"]
    assert ipo["objective"]["tau"] == 0.3


def test_the_option_that_stood_there_keeps_what_the_experiment_says() -> None:
    dpo = settled("experiment=lifecycle", "pipeline.dpo.objective=dpo")["dpo"]
    assert dpo["objective"]["beta"] == 0.5


def test_another_model_takes_nothing_over_from_the_one_that_the_experiment_tuned() -> None:
    with compose.hydra_session():
        overrides = compose.rewritten(["experiment=smoke", "model=small", "model.layers=5"], [])
        cfg = replaced.drop_settings_of_replaced(compose.composed(overrides)[0], overrides, [])
    assert (cfg.model.layers, cfg.model.width, cfg.model.feedforward) == (5, 192, 512)


def test_an_option_from_hydras_search_path_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "objective").mkdir()
    (tmp_path / "objective" / "mine.yaml").write_text("# Mine.\n_target_: alignlab_dpo.IPO\ntau: 0.7\n")
    found = [f"hydra.searchpath=[file://{tmp_path}]"]
    overrides = ["experiment=lifecycle", "objective@pipeline.dpo.objective=mine"]
    with compose.hydra_session():
        cfg, _ = compose.composed([*found, *overrides])
        node = replaced.drop_settings_of_replaced(cfg, overrides, [], found).pipeline.dpo.objective
    assert dict(node) == {"_target_": "alignlab_dpo.IPO", "tau": 0.7}


def test_a_replaced_stage_comes_as_its_own_file_has_it() -> None:
    stages = settled("experiment=lifecycle", "pipeline.ppo=dpo", "pipeline.ppo.objective=ipo", "pipeline.ppo.seed=7")
    assert stages["ppo"]["_target_"] == "alignlab_dpo.DPOStage" and "advantage" not in stages["ppo"]
    assert stages["ppo"]["objective"] == {"_target_": "alignlab_dpo.IPO", "tau": 0.1} and stages["ppo"]["seed"] == 7
