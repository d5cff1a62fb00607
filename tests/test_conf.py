"""The configuration: how overrides are rewritten, what the final check finds, what `_target_` may name."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_plugins import FAKES, declare, write_package
from omegaconf import OmegaConf

from alignlab.config import compose, options, plugins
from alignlab.config.check import parse
from alignlab.config.experiment import Experiment, check
from alignlab.config.locate import locate, public_path
from alignlab.config.optional import KEY, leave_out
from alignlab.config.overrides import Choice, Reader
from alignlab.config.signature import parameters
from alignlab.config.spec import Builder
from alignlab.data.source import DataSource
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


def checked(*overrides: str) -> Experiment:
    """As the command does it."""
    with compose.session(overrides) as hydra:
        return check(hydra.compose(overrides), overrides)


def composed(*overrides: str, folders: tuple[Path, ...] = ()) -> Any:
    """The configuration of one job, without Hydra's section and unresolved."""
    with compose.session(overrides, folders) as hydra:
        found: Any = OmegaConf.to_container(hydra.compose(overrides))
    return {key: value for key, value in found.items() if key != "hydra"}


def written(*typed: str, choices: dict[str, str | None] | None = None) -> list[str]:
    """The overrides as Hydra takes them."""
    found = Reader(typed, CATALOG, TOP).read(choices or {})
    return [item.written(item.key in (choices or {})) if isinstance(item, Choice) else item for item in found]


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
        ("+experiment=lifecycle", "experiment=lifecycle"),
        ("data.corpus=a (1).jsonl", '++data.corpus="a (1).jsonl"'),
        ("data.corpus=a=b.jsonl", '++data.corpus="a=b.jsonl"'),
        ("data.corpus=café 数据.jsonl", '++data.corpus="café 数据.jsonl"'),
        ("data.entities=3", "++data.entities=3"),
        ("seed=range(3)", "++seed=range(3)"),
        ("objective@pipeline.dpo.objective=ipo", "objective@pipeline.dpo.objective=ipo"),
        ("hydra.run.dir=here", "hydra.run.dir=here"),
        ("hydra/launcher=joblib", "hydra/launcher=joblib"),
    ],
)
def test_an_option_selects_and_a_value_sets(typed: str, becomes: str) -> None:
    there = {key: "dpo" for key in (becomes.lstrip("+").partition("=")[0],) if "@" in key and becomes[0] != "+"}
    assert written(typed, choices=there) == [becomes]


def test_a_part_of_a_single_stage_needs_no_path() -> None:
    given = ["experiment=train", "stage=dpo", "objective=ipo", "stage.inputs.policy=there"]
    there = {"objective@stage.objective": "dpo"}
    found = written(*given, "objective.beta=0.3", choices=there)[2:]
    assert found == ["objective@stage.objective=ipo", "++stage.inputs.policy=there", "++stage.objective.beta=0.3"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("objective=ipo", r"say for which stage, as in pipeline\.NAME\.objective=ipo"),
        ("data=null", r"data=null: no such option"),
        ("objective=ippo", r"objective=ippo: no such option; objective has dpo, ipo; did you mean ipo\?"),
        ("experiment=lifecicle", r"no such option; experiment has lifecycle, train; did you mean lifecycle\?"),
        ("data=world,fils", r"data=fils: no such option"),
        (
            "objective.beta=0.3",
            r"objective\.beta=0\.3: say for which stage, as in pipeline\.NAME\.objective\.beta=0\.3",
        ),
        ("a=[", r"cannot read the override 'a=\['"),
    ],
)
def test_an_override_that_cannot_be_meant_is_refused(typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        written(typed)


# ---- the final check -------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("fakes")
def test_a_good_configuration_passes() -> None:
    found = checked("experiment=fake", "pipeline.tuned.objective=counting", "pipeline.tuned.objective.limit=3")
    assert found.name == "fake"
    objective = found.pipeline["tuned"].arguments["objective"]
    assert objective.plain() == {"_target_": "lab_fakes.Counting", "beta": 0.2, "limit": 3}


@pytest.mark.usefixtures("fakes")
def test_an_input_that_is_null_is_not_given() -> None:
    """A file cannot take away a key that an option has set; null in its place does."""
    found = checked("experiment=fake", "pipeline.tuned.inputs.policy=null")
    assert found.pipeline["tuned"].arguments["inputs"] == {"preferences": "label"}


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
        ("stage=make", r"stage=make cannot be combined with a pipeline"),
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
    with compose.session(folders=[tmp_path / "conf"]) as hydra:
        cfg = hydra.compose(["experiment=mine"])
        with pytest.raises(ConfigError, match=r"pipeline\.base\.sise: Make takes size, not sise"):
            check(cfg)


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
    assert found.pipeline["make"].arguments["objective"].cls.__name__ == "Counting"
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
        parse({"_target_": "lab_fakes.Make", "size": 1, "objective": {"_target_": target}}, "pipeline.x")


def test_a_refused_target_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"trap\.Door is refused"):
        locate("trap.Door", "x")


@pytest.mark.usefixtures("fakes")
def test_a_plugins_class_can_be_built_and_lists_become_tuples() -> None:
    built = parse({"_target_": "lab_fakes.Weighing", "beta": 1, "betas": [0.5, 1]}, "x").build()
    assert (type(built).__name__, built.beta, built.betas) == ("Weighing", 1.0, (0.5, 1.0))
    assert isinstance(built.beta, float) and isinstance(built.betas[1], float)


def test_sources_configured_alike_are_one_object() -> None:
    node = {"_target_": "alignlab.data.world.World", "seed": 3}
    build = Builder(shared=(DataSource,)).build
    first, second = build([parse(node, "a"), parse({**node, "entities": 64}, "b")])
    assert first is not second, "a default that is written out is another argument list"
    assert build(parse(node, "c")) is first
    assert build(parse({**node, "seed": 4}, "x")) is not first
    one, other = Builder().build([parse(node, "a"), parse(node, "b")])
    assert one is not other, "nothing is shared that was not asked for"


# ---- plugins ---------------------------------------------------------------------------------------------------------
def test_our_own_plugins_are_installed() -> None:
    found = {p.name: p.package for p in plugins.installed()}
    assert found.items() >= {(n, f"alignlab_{n}") for n in ("dpo", "ppo", "pretrain", "raters", "reward_model", "sft")}


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (None, r"plugin odd \(package odd_lab of odd 1\.0\) cannot be found: its entry point names odd_lab"),
        ("", r"plugin odd .* states no contract; write CONTRACT = "),
        ("CONTRACT = 0", r"plugin odd .* was written for contract 0, .* update the plugin"),
        ("CONTRACT: int = 99", r"plugin odd .* was written for contract 99, .* update alignlab"),
        ("CONTRACT = (", r"plugin odd .* cannot be read"),
    ],
)
def test_a_plugin_that_does_not_fit_is_named_where_it_is_used(
    init: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(declare(tmp_path, "odd", "odd_lab"))
    if init is not None:
        write_package(tmp_path, "odd_lab", init)
    assert "odd" not in {p.name for p in plugins.installed()}
    (found,) = plugins.broken()
    assert re.search(message, found.reason)
    with pytest.raises(ConfigError, match=message):
        locate("odd_lab.Thing", "pipeline.x")


def test_a_plugin_of_the_first_contract_is_told_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "CONTRACT", 2)
    monkeypatch.syspath_prepend(declare(tmp_path, "odd", "odd_lab_old"))
    write_package(tmp_path, "odd_lab_old", "CONTRACT = 1\n")
    reason = next(b.reason for b in plugins.broken() if b.name == "odd")
    assert "was written for contract 1, alignlab" in reason and "\n" not in reason
    for word in ("`per`", "`step_means`", "units()", "self.loss(batch, name=values)", "docs/write-a-plugin.md"):
        assert word in reason


def test_two_distributions_with_one_plugins_name_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, version in (("a", "1.0"), ("b", "2.0")):
        info = tmp_path / folder / f"odd_{folder}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: odd_{folder}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[alignlab.plugins]\nodd = odd_lab_{folder}\n")
        write_package(tmp_path / folder, f"odd_lab_{folder}")
        monkeypatch.syspath_prepend(tmp_path / folder)
    assert "odd" not in {p.name for p in plugins.installed()}
    assert {b.package for b in plugins.broken()} == {"odd_lab_a", "odd_lab_b"}
    assert all("odd_a 1.0, odd_b 2.0" in b.reason for b in plugins.broken())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import nowhere_to_be_found",
            r"importing odd_lab_broken \(plugin odd of odd 1\.0\) fails: ModuleNotFoundError: .*nowhere_to_be_found",
        ),
        ("import sys\nsys.exit(3)", r"importing odd_lab_broken .* fails: SystemExit: 3"),
        ("raise RuntimeError('no')", r"importing odd_lab_broken .* fails: RuntimeError: no"),
    ],
)
def test_a_plugin_that_fails_to_import_is_named(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(declare(tmp_path, "odd", "odd_lab_broken"))
    write_package(tmp_path, "odd_lab_broken", f"CONTRACT = {plugins.CONTRACT}\n{code}\n")
    with pytest.raises(ConfigError, match=message):
        locate("odd_lab_broken.Thing", "pipeline.x")


def test_an_import_that_cannot_work_is_found_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(declare(tmp_path, "odd", "odd_lab_lacks"))
    write_package(tmp_path, "odd_lab_lacks", f"CONTRACT = {plugins.CONTRACT}\nimport nowhere_to_be_found\n")
    odd = next(p for p in plugins.installed() if p.name == "odd")
    assert "imports nowhere_to_be_found, which is not installed" in plugins.import_problem(odd)
    assert [p.name for p in plugins.installed() if plugins.import_problem(p)] == ["odd"]


def test_two_packages_with_the_same_option_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(declare(tmp_path, "odd", "odd_lab_twin"))
    write_package(tmp_path, "odd_lab_twin", f"CONTRACT = {plugins.CONTRACT}\n", objective__dpo="beta: 1\n")
    with pytest.raises(ConfigError, match=r"alignlab_dpo and odd_lab_twin both ship objective/dpo\.yaml"):
        options.options()


OPTIONS = [o for o in options.options() if o.group and o.group.split("/")[0] not in ("hydra", "experiment", "scale")]
"""Those that make objects; experiments and scales set what others made."""


def test_every_option_is_yaml_with_a_sentence_at_its_head() -> None:
    for option in options.options():
        assert option.read() is not None
        if option.group and not option.group.startswith("hydra"):
            assert option.summary().endswith("."), option.file


@pytest.fixture(scope="module")
def probes() -> dict[str, Any]:
    """Every option, composed where nothing else is: its node by group and name."""
    # By number: Hydra replaces `_group_` and `_name_` inside of any key.
    overrides = [f"+{o.group}@probe.option{i}={o.name}" for i, o in enumerate(OPTIONS)]
    with compose.session(overrides) as hydra:
        found: Any = OmegaConf.to_container(hydra.compose(overrides).probe)
    return {f"{o.group}={o.name}": found[f"option{i}"] for i, o in enumerate(OPTIONS)}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda o: f"{o.group}={o.name}")
def test_every_option_composes_and_lists_every_argument_of_its_class(
    option: options.Option, probes: dict[str, Any]
) -> None:
    """Nobody has to read a constructor to know what can be set; `alignlab plugins` shows the file."""
    node = probes[f"{option.group}={option.name}"]
    assert node["_target_"] == public_path(locate(node["_target_"], option.file.name))
    for path, cls, given in targets(node, option.name):
        left_out = {"inputs", "seed"} if getattr(cls, "TAKES_ALL", False) else {"inputs"}  # a report draws nothing
        assert parameters(cls).keys() - given.keys() - left_out == set(), f"{option.file}: {path}"


def targets(node: Any, path: str) -> Iterator[tuple[str, type[Any], dict[str, Any]]]:
    """Every object below a node: its path, class and arguments."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, locate(node["_target_"], path), node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}")


def test_every_target_in_a_file_is_spelled_with_its_public_path() -> None:
    """So that nothing has to change when a class moves inside its package."""
    found = [(f, folder) for _, folder in options.roots() for f in folder.rglob("*.yaml")]
    files = [f for f, folder in found if f.relative_to(folder).parts[0] != "hydra"]  # Hydra builds those itself
    spelled = {(f.name, t) for f in files for t in re.findall(r"_target_: *([\w.]+)", f.read_text(encoding="utf-8"))}
    assert len(spelled) > 25
    for file, target in spelled:
        assert target == public_path(locate(target, file)), file


def test_stages_are_left_out_with_what_they_need_and_others_take_what_they_took() -> None:
    stages: dict[str, Any] = {
        "a": {"inputs": {"policy": "x"}, KEY: None},
        "b": {"inputs": {"policy": "a"}, KEY: ""},
        "c": {"inputs": {"policy": "b", "data": "kept"}, KEY: "given"},
        "d": {"inputs": None},
        "e": {"inputs": {"policy": {"not": "a name"}}},
        "f": "no stage",
    }
    others = {name: stages[name] for name in "def"}
    leave_out(stages)
    assert stages == {"c": {"inputs": {"policy": "x", "data": "kept"}}, **others}
    with pytest.raises(
        ConfigError, match=r"pipeline\.c\.inputs\.data: the stage l is left out, since its only_with is"
    ):
        leave_out({"l": {KEY: None}, "c": {"inputs": {"data": "l"}}})
    circle = {name: {"inputs": {"policy": other}, KEY: None} for name, other in (("a", "b"), ("b", "a"))}
    with pytest.raises(ConfigError, match="it has no policy to take in its place"):
        leave_out({**circle, "c": {"inputs": {"policy": "a"}}})


FILES = ["data.corpus=a.txt", "data.instructions=b.jsonl", "data.preferences=c.jsonl"]


@pytest.mark.parametrize(
    "overrides",
    [["experiment=lifecycle"], ["experiment=smoke"], ["experiment=lifecycle_files", *FILES]],
    ids=lambda o: o[0].partition("=")[2],
)
def test_every_experiment_passes_the_final_check(overrides: list[str]) -> None:
    assert {"pretrain", "sft", "dpo", "ppo", "report"} <= checked(*overrides).pipeline.keys()


def test_each_round_begins_where_the_one_before_ended() -> None:
    inputs = {
        name: spec.arguments["inputs"] for name, spec in checked("experiment=rounds").pipeline.items() if "_" in name
    }
    policies = {name: given["policy"] for name, given in inputs.items()}
    before = ("sft", "dpo_1", "dpo_2", "dpo_3")
    for number, start in enumerate(before[:3], start=1):
        assert policies[f"label_{number}"] == policies[f"dpo_{number}"] == start
        assert inputs[f"dpo_{number}"]["preferences"] == f"label_{number}"
    assert [policies[f"drift_{name}"] for name in before] == list(before)


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward_model", "dpo", "ppo", "label"])
def test_every_stage_can_be_trained_alone(stage: str) -> None:
    inputs = [f"stage.inputs.{name}=folder" for name in ("policy", "preferences", "reward")]
    assert list(checked("experiment=train", f"stage={stage}", *inputs).pipeline) == [stage]


# ---- options chosen over an experiment's ---------------------------------------------------------------------------
def settled(*typed: str) -> dict[str, Any]:
    """The stages of one job, with what the command selects in them."""
    return dict(composed(*typed)["pipeline"])


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
    model = composed("experiment=smoke", "model=small", "model.layers=5")["model"]
    assert (model["layers"], model["width"], model["feedforward"]) == (5, 192, 512)


def test_an_option_from_hydras_search_path_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "objective").mkdir()
    (tmp_path / "objective" / "mine.yaml").write_text("# Mine.\n_target_: alignlab_dpo.IPO\ntau: 0.7\n")
    found = f"hydra.searchpath=[file://{tmp_path}]"
    stages = settled(found, "experiment=lifecycle", "objective@pipeline.dpo.objective=mine")
    assert stages["dpo"]["objective"] == {"_target_": "alignlab_dpo.IPO", "tau": 0.7}


def test_a_replaced_stage_comes_as_its_own_file_has_it() -> None:
    stages = settled("experiment=lifecycle", "pipeline.ppo=dpo", "pipeline.ppo.objective=ipo", "pipeline.ppo.seed=7")
    assert stages["ppo"]["_target_"] == "alignlab.training.PreferenceStage" and "advantage" not in stages["ppo"]
    assert stages["ppo"]["objective"] == {"_target_": "alignlab_dpo.IPO", "tau": 0.1} and stages["ppo"]["seed"] == 7


def own(folder: Path, **files: str) -> tuple[Path, ...]:
    """A folder of options: `group__name` with its text."""
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/')}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return (folder,)


GENTLE = "# Gentle.\ndefaults: [gae, _self_]\nbeta: 0.05\n"
MINE = """# @package _global_
# Mine.
defaults:
  - lifecycle
  - _self_
  - override /advantage@pipeline.ppo.advantage: gentle
  - override /objective@pipeline.dpo.objective: ipo
name: mine
pipeline: {dpo: {objective: {tau: 0.3}, loop: {steps: 7}}}
"""


def test_an_option_replaced_in_a_file_drops_what_an_included_file_set_for_the_old_one(tmp_path: Path) -> None:
    """The lifecycle sets beta to 0.4 for GAE and to 0.5 for DPO; the file's own settings stand."""
    folders = own(tmp_path, advantage__gentle=GENTLE, experiment__mine=MINE)
    stages = composed("experiment=mine", folders=folders)["pipeline"]
    assert stages["ppo"]["advantage"]["beta"] == 0.05
    assert stages["dpo"]["objective"] == {"_target_": "alignlab_dpo.IPO", "tau": 0.3}
    assert stages["dpo"]["loop"]["steps"] == 7 and stages["pretrain"]["loop"]["steps"] == 600


def test_the_command_line_replaces_what_a_file_has_replaced(tmp_path: Path) -> None:
    folders = own(tmp_path, advantage__gentle=GENTLE, experiment__mine=MINE)
    stages = composed("experiment=mine", "pipeline.dpo.objective=dpo", folders=folders)["pipeline"]
    assert stages["dpo"]["objective"] == {"_target_": "alignlab_dpo.DPO", "beta": 0.5}, "as the lifecycle tuned it"


def test_a_file_two_levels_up_drops_the_settings_of_the_level_between(tmp_path: Path) -> None:
    defaults = "  - mine\n  - _self_\n  - override /objective@pipeline.dpo.objective: dpo\n"
    outer = f"# @package _global_\n# Outer.\ndefaults:\n{defaults}"
    folders = own(tmp_path, advantage__gentle=GENTLE, experiment__mine=MINE, experiment__outer=outer)
    stages = composed("experiment=outer", folders=folders)["pipeline"]
    assert stages["dpo"]["objective"] == {"_target_": "alignlab_dpo.DPO", "beta": 0.5}


# ---- slots with names ------------------------------------------------------------------------------------------------
def test_a_rater_can_be_swapped_and_its_slot_takes_the_new_name() -> None:
    raters = settled("experiment=lifecycle", "pipeline.label.preference.raters.dazzled=lister")["label"]["preference"]
    assert list(raters["raters"]) == ["honest", "explorer", "lister"]
    assert raters["raters"]["lister"]["name"] == "lister"


def test_settings_of_a_swapped_rater_may_name_the_old_slot_or_the_new_one() -> None:
    place = "pipeline.label.preference.raters"
    for name in ("dazzled", "lister"):
        typed = ["experiment=lifecycle", f"{place}.dazzled=lister", f"{place}.{name}.noise=0.7"]
        raters = settled(*typed)["label"]["preference"]["raters"]
        assert list(raters) == ["honest", "explorer", "lister"] and raters["lister"]["noise"] == 0.7


def test_a_rater_and_a_reward_can_be_added() -> None:
    place = "pipeline.evaluate_dpo.evaluations.world.rewards.honest"
    stages = settled("experiment=lifecycle", "pipeline.label.preference.raters.extra=lister", f"{place}=honest")
    assert list(stages["label"]["preference"]["raters"]) == ["honest", "explorer", "dazzled", "extra"]
    rewards = stages["evaluate_dpo"]["evaluations"]["world"]["rewards"]
    assert list(rewards) == ["true_taste", "honest"] and rewards["honest"]["_target_"] == "alignlab_raters.Rater"


# ---- where a class lives ---------------------------------------------------------------------------------------------
CODE = '''"""A stage and its objective."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from alignlab.stage import Stage


@dataclass(frozen=True)
class Thing:
    """An objective."""

    VERSION: ClassVar[str] = "1"
    beta: float = 0.1
'''


def test_moving_a_class_inside_its_package_keeps_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identities = []
    for number, module in enumerate(("objective", "losses")):
        site = tmp_path / str(number)
        monkeypatch.syspath_prepend(declare(site, "odd", "odd_lab_moves"))
        write_package(
            site, "odd_lab_moves", f"CONTRACT = {plugins.CONTRACT}\nfrom odd_lab_moves.{module} import Thing\n"
        )
        (site / "odd_lab_moves" / f"{module}.py").write_text(CODE)
        for name in [n for n in sys.modules if n.partition(".")[0] == "odd_lab_moves"]:
            monkeypatch.delitem(sys.modules, name)
        spec = parse({"_target_": "odd_lab_moves.Thing", "beta": 1}, "x")
        assert spec.cls.__module__ == f"odd_lab_moves.{module}"
        identities.append(spec.identity())
    assert identities[0] == identities[1] == {"class": "odd_lab_moves.Thing", "VERSION": "1", "beta": 1.0}


@pytest.mark.usefixtures("fakes")
def test_a_specs_plain_form_reads_back_as_the_same_spec_and_its_redacted_form_holds_no_secret() -> None:
    node = {"_target_": "lab_fakes.Make", "size": 2, "objective": {"_target_": "lab_fakes.Weighing", "betas": [0.5, 1]}}
    spec = parse(node, "x")
    assert parse(spec.plain(), "y") == spec and spec.plain()["objective"]["betas"] == [0.5, 1.0]
    secret = parse({"_target_": "lab_fakes.Hidden", "path": "hf_" + "a" * 30}, "x")
    assert "hf_a" in str(secret.plain()) and "hf_a" not in str(secret.redacted())
    assert [s.cls.__name__ for s in spec.walk()] == ["Make", "Weighing"]


@pytest.mark.usefixtures("fakes")
def test_any_class_may_have_a_content_digest_and_it_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    import lab_fakes

    node = {"_target_": "lab_fakes.Make", "size": 2, "objective": {"_target_": "lab_fakes.Weighing"}}
    before = parse(node, "x").identity()
    for digest, changes in (("", False), ("abc", True)):
        monkeypatch.setattr(lab_fakes.Weighing, "content_digest", lambda _, d=digest: d, raising=False)
        assert (parse(node, "x").identity() != before) is changes
