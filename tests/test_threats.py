"""One attack for each line of `docs/security.md`: the payload would leave a file named `trap`, and it does not.

Attacks that stand elsewhere, by the line of that page:

| threat | test |
|---|---|
| keys in what is recorded | `test_secrets.py`, and below in every file of a run |
| model output in the report | `test_report.py::test_hostile_text_stays_text`, `::test_policy_allows_the_pages_own_style_and_script_alone` |
| a remote reward | `plugins/alignlab_verifiable/tests/test_remote.py` |
| chat templates that do not end | `test_chat_templates.py::test_a_template_that_does_not_end_is_refused` |
| weights outside of their folder | `test_policy_folder.py::test_shards_are_read_from_their_own_folder_only` |
| millions of layers | `test_policy_loading.py::test_a_model_of_millions_of_parts_is_refused_by_name` |
| damaged manifests and configurations | `test_policy_folder.py::test_an_artifact_with_a_malformed_file_is_one_message` |
| kernels of a repository | `test_import_model.py::test_kernels_of_a_repository_are_never_run` |
| plugins that fail or clash | `test_conf.py::test_a_plugin_that_fails_to_import_is_named`, `::test_two_distributions_with_one_plugins_name_are_both_named` |
| a command that is killed | `test_distributed_runs.py::test_a_run_that_is_killed_leaves_nobody_behind_and_goes_on_alone` |
| Hydra's section of a config folder | `test_cli_untrusted.py`, and below |
"""  # noqa: E501

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import CHATML, bpe
from model_folders import edit, llama

from alignlab.cli.app import main
from alignlab.config.locate import locate
from alignlab.data.template import render
from alignlab.errors import AlignlabError, ConfigError, DataError
from alignlab.policy import Policy
from alignlab.sanitize import printable

ROOT = Path(__file__).parents[1]
HEAD = '# @package _global_\ndefaults: [fake, {override /tracking: "off"}]\n'
EVIL = "# @package hydra.job_logging\nhandlers: {console: {'()': shutil.copyfile, src: conf/a, dst: trap}}\n"
BOMB = "x0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"x{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
COPY = "{_target_: shutil.copyfile, src: conf/a, dst: trap}"
FOLDERS: dict[str, tuple[dict[str, str], list[str], str]] = {
    "a class": ({"experiment/evil": HEAD + f"pipeline: {{base: {COPY}}}\n"}, [], r"pipeline\.base\._target_: shutil"),
    "a class by another name": (
        {"experiment/evil": HEAD + "pipeline: {base: {_target_: alignlab.cli.app.os.system, command: touch trap}}\n"},
        [],
        r"pipeline\.base\._target_: alignlab\.cli\.app\.os\.system",
    ),
    "an object of YAML": (
        {"experiment/evil": HEAD + "name: !!python/object/apply:os.system ['touch trap']\n"},
        [],
        r"experiment/evil\.yaml .*is not YAML",
    ),
    "logging, by name": ({"hydra/job_logging/evil": EVIL}, ["hydra/job_logging=evil"], r"hydra/job_logging=evil: "),
    "callbacks, by name": ({"hydra/callbacks/evil": f"x: {COPY}\n"}, ["hydra/callbacks=evil"], r"hydra/callbacks=evil"),
    "Hydra's root": ({"hydra/config": f"callbacks: {{x: {COPY}}}\n"}, [], r"hydra"),
    "Hydra's launcher": (
        {"hydra/launcher/basic": "# @package hydra.launcher\n_target_: os.system\n"},
        ["-m", "pipeline.base.size=1,2"],
        r"hydra\.launcher",
    ),
    "the environment": ({"experiment/evil": HEAD + "name: '${oc.env:SECRET}'\n"}, [], "name: .*environment"),
    "the environment, computed": (
        {"experiment/evil": HEAD + "name: '${oc.${rerun}:SECRET}'\nrerun: env\n"},
        [],
        r"name: .*call oc\.\$\{rerun\}",
    ),
    "the environment, decoded": (
        {"experiment/evil": HEAD + "name: '${oc.decode:${rerun}}'\nrerun: '${adapter}{oc.env:SECRET}'\nadapter: $\n"},
        [],
        r"name: .*call oc\.decode",
    ),
    "a secret to send": (
        {
            "experiment/evil": HEAD + "pipeline: {label: {reward: {_target_: alignlab_verifiable.Http, "
            "url: https://example.org, bearer_from: SECRET}}}\n"
        },
        [],
        r"pipeline\.label\.reward\.bearer_from: ",
    ),
    "another place": (
        {"experiment/evil": HEAD + "hydra: {run: {dir: ../elsewhere}}\n"},
        [],
        r"hydra\.run\.dir: .*outside of the working directory",
    ),
    "a name as a path": (
        {"experiment/evil": HEAD + "pipeline: {../../trap: {_target_: lab_fakes.Make, size: 1}}\n"},
        [],
        "cannot name a stage",
    ),
    "aliases": ({"experiment/evil": HEAD + BOMB}, [], r"experiment/evil\.yaml .*stands for more than 200000 values"),
    "depth": ({"experiment/evil": HEAD + "name: " + "[" * 9000}, [], r"experiment/evil\.yaml .*nested too deeply"),
}


@pytest.mark.usefixtures("fakes_here")
@pytest.mark.parametrize("attack", FOLDERS)
def test_a_config_folder_of_somebody_elses(
    attack: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, arguments, message = FOLDERS[attack]
    monkeypatch.setenv("SECRET", "hunter2")
    for name, text in {"experiment/evil": HEAD, "a": "", **files}.items():
        file = Path("conf") / (f"{name}.yaml" if name != "a" else name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with pytest.warns() if attack == "Hydra's launcher" else _nothing():
        assert main([*arguments, "--config-dir", "conf", "experiment=evil"]) == 1
    said = capsys.readouterr()
    assert re.search(message, said.err) and "Traceback" not in said.err and "hunter2" not in said.out + said.err
    assert [path.name for path in Path().iterdir()] == ["conf"], "nothing was made"


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.usefixtures("fakes_here")
def test_an_option_that_is_not_utf8_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_bytes(HEAD.encode() + b"name: caf\xe9\n")
    assert main(["--config-dir", "conf", "experiment=mine"]) == 1
    assert re.search(r"experiment/mine\.yaml \(.*\) is not UTF-8", capsys.readouterr().err)


@pytest.mark.parametrize(
    "target", ["torch.load", "pandas.read_pickle", "builtins.exec", "subprocess.Popen", "os.system"]
)
def test_a_class_is_judged_by_where_it_is_defined(target: str) -> None:
    for spelt in (target, f"alignlab.{target}", f"alignlab.cli.app.{target}"):
        with pytest.raises(ConfigError, match=r"^x\._target_: "):
            locate(spelt, "x")


# ---- keys in what is recorded ----------------------------------------------------------------------------------------
@pytest.mark.usefixtures("fakes_here")
def test_a_typed_key_is_in_no_file_of_a_run_and_not_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    secret = "ghp_" + "h" * 36
    typed = ["experiment=fake", f"name={secret}", "hydra.run.dir=run"]
    main(typed)
    main(["-m", "experiment=fake", f"name={secret},x", "hydra.sweep.dir=sweep"])
    main(["experiment=fake", "+pipeline.base.api_key=hunter2hunter2", "hydra.run.dir=other"])
    said = capfd.readouterr()
    assert secret not in said.out + said.err and "hunter2" not in said.out + said.err
    files = [f for top in ("run", "sweep", "other", ".alignlab") for f in Path(top).rglob("*") if f.is_file()]
    assert {"config.yaml", "manifest.json", "status.json"} <= {f.name for f in files}
    leaks = [str(f) for f in files if secret.encode() in f.read_bytes() or b"hunter2" in f.read_bytes()]
    assert leaks == []


# ---- pickles and code of models --------------------------------------------------------------------------------------
class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, ("trap", "w")


def test_the_payload_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap())).close()
    assert Path("trap").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "adapter_model.bin", "training_args.bin"])
def test_pickles_in_a_model_folder_are_not_loaded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = llama(tmp_path / "model")
    if name != "training_args.bin":
        (folder / "model.safetensors").unlink()
    torch.save(Trap(), folder / name)
    if name == "training_args.bin":
        Policy.load(folder)
    else:
        with pytest.raises(AlignlabError, match=str(folder)):
            Policy.load(folder)
    assert not Path("trap").exists()


def test_a_checkpoint_is_loaded_without_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state": Trap()}, tmp_path / "last.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not Path("trap").exists()
    for file in (*ROOT.glob("alignlab/**/*.py"), *ROOT.glob("plugins/alignlab_*/**/*.py")):
        text = file.read_text(encoding="utf-8")
        assert "weights_only=False" not in text and "trust_remote_code=True" not in text, file
        loads = re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", text)
        assert all("weights_only=True" in call for call in loads), f"{file}: {loads}"


def test_code_of_a_model_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = llama(tmp_path / "model")
    (folder / "modeling.py").write_text("open('trap', 'w')\n")
    own = {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M", "AutoTokenizer": ["modeling.T", None]}
    for file in ("config.json", "tokenizer_config.json"):
        edit(folder / file, lambda c: c.update(auto_map=own))
    try:
        Policy.load(folder)
    except AlignlabError as error:
        assert str(folder) in str(error)
    assert not Path("trap").exists()


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch trap') }}",
        "{{ messages.__class__.__base__ }}{{ raise_exception.__globals__ }}",
        "{{ (messages|attr('__class__')).__base__ }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
    ],
)
def test_a_chat_template_stays_in_its_sandbox(escape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        text = render(bpe(escape + CHATML), [{"role": "user", "content": "hi"}], True)
        assert "<class" not in text and "function" not in text
    except DataError as error:
        assert "chat template" in str(error)
    assert not Path("trap").exists()


# ---- texts -----------------------------------------------------------------------------------------------------------
def test_controls_of_the_terminal_are_shown_not_obeyed() -> None:
    for text in ("\x1b[2J", "\x1b]0;title\x07", "a\rb", "\x9b31m", "\u202egnp.exe", "\u200b", "\x08\x08"):
        assert not set(printable(text)) & set("\x1b\x07\r\x9b\u202e\u200b\x08")


def test_the_page_lists_every_attack_and_no_other() -> None:
    """`docs/security.md` names its test in each row; each one exists."""
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|plugins)/[\w/.]+\.py)(?:::(\w+))?`", page)
    assert len(named) >= 15
    for file, test in named:
        assert f"def {test or 'test_'}" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
    own = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    listed = {test for file, test in named if file == "tests/test_threats.py"}
    helpers = {"test_the_payload_is_one", "test_the_page_lists_every_attack_and_no_other"}
    assert own - helpers == listed


def test_no_sentence_of_a_librarys_is_read() -> None:
    """What a library says in English changes with its version; types, attributes and its own tables do not."""
    sentences = ("To append", "Could not override", "No match in the defaults", "Config search path:", "not in struct")
    sentences += ("Invalid regular expression", "multiple values for", "out of memory", "CUDA error")
    for file in (*ROOT.glob("alignlab/**/*.py"), *ROOT.glob("plugins/alignlab_*/*.py")):
        text = file.read_text(encoding="utf-8")
        for sentence in sentences:
            read = rf"(partition|split|search|match|removeprefix|startswith)\([^\n]*{re.escape(sentence)}|"
            read += rf"[\"']{re.escape(sentence)}[^\n]*[\"'] (not )?in "
            assert not re.search(read, text), f"{file} reads {sentence!r}"


# ---- runs that were killed -------------------------------------------------------------------------------------------
def test_a_damaged_line_of_curves_does_not_break_a_later_run(tmp_path: Path) -> None:
    from alignlab.tracking.curves import Curves

    (tmp_path / "work").mkdir()
    (tmp_path / "work/curves.jsonl").write_bytes(b'{"step": 1, "a": 1}\n{"ste\xff\n[]\n{"step": 2, "a": 2}\n{"step": 3')
    curves = Curves(tmp_path, tmp_path / "work")
    curves.log(5, {"a": 5.0})
    curves.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "curves.jsonl").read_text().splitlines()] == [1, 2, 5]
