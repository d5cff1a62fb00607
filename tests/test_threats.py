"""Attacks on what `docs/security.md` promises: the payload would leave a file named `trap`, and it does not.

The page names the test of each of its rows. Those of a part that has tests of its own stand there (`test_secrets.py`,
`test_cli_untrusted.py`, `test_policy_folder.py`, `test_chat_templates.py`, `test_report.py`); the others are here.
"""

import ast
import datetime
import gzip
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from chat_templates import CHATML, bpe
from fake_plugins import FAKES
from model_folders import edit, llama
from report_run import make_run
from test_distributed_runs import begin, children, finished, status, wait_for

from alignlab.cli.app import main
from alignlab.config.locate import locate
from alignlab.data.template import render
from alignlab.errors import AlignlabError, ConfigError, DataError
from alignlab.pipeline.run_folder import read_status
from alignlab.policy import Policy
from alignlab.report import page
from alignlab.report.run import RunView
from alignlab.sanitize import printable

ROOT = Path(__file__).parents[1]
HEAD = '# @package _global_\ndefaults: [fake, {override /tracking: "off"}]\n'
EVIL = "# @package hydra.job_logging\nhandlers: {console: {'()': shutil.copyfile, src: conf/a, dst: trap}}\n"
BOMB = "x0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"x{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
OTHERS = "sft label reward_model dpo ppo evaluate_pretrain evaluate_sft evaluate_dpo evaluate_ppo"
ONE_STAGE = [f"~pipeline.{name}" for name in OTHERS.split()]
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
    "a service of this machine": (
        {
            "experiment/evil": HEAD + "pipeline: {label: {reward: {_target_: alignlab_verifiable.Http, "
            "url: http://127.0.0.1/x, allow_private: true}}}\n"
        },
        [],
        r"pipeline\.label\.reward\.allow_private: .*services of this machine",
    ),
    "another place": (
        {"experiment/evil": HEAD + "hydra: {run: {dir: ../elsewhere}}\n"},
        [],
        r"hydra\.run\.dir: .*outside of the working directory",
    ),
    "another place, named after the job": (
        {
            "experiment/evil": HEAD
            + "hydra: {mode: MULTIRUN, sweep: {subdir: '../../../../trap${hydra.job.num}'}, "
            + "sweeper: {params: {seed: '0,1'}}}\n"
        },
        [],
        r"hydra\.sweep\.subdir: .*outside of the working directory",
    ),
    "another place, that a job alone knows": (
        {
            "experiment/evil": HEAD
            + "hydra: {mode: MULTIRUN, sweep: {subdir: '../../../../trap${hydra:job.num}'}, "
            + "sweeper: {params: {seed: '0,1'}}}\n"
        },
        [],
        r"hydra\.sweep\.subdir: .*may not call hydra",
    ),
    "another place, that nobody knows before": (
        {"experiment/evil": HEAD + "hydra: {run: {dir: 'x${hydra.runtime.output_dir}'}}\n"},
        [],
        r"hydra\.run\.dir: where .* is not known before the job begins",
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


@pytest.mark.usefixtures("fakes_here")
@pytest.mark.parametrize("spelt", ["/../../secret", "/{here}/secret", "/stage/linked"])
def test_a_config_folder_reads_no_configuration_from_elsewhere(
    spelt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it holds would stand in the run's files, and go where they are sent."""
    Path("secret.yaml").write_text("loss: hunter2\n")
    for group in ("experiment", "stage"):
        Path("conf", group).mkdir(parents=True)
    Path("conf/stage/linked.yaml").symlink_to(tmp_path / "secret.yaml")
    text = HEAD.replace("[fake,", f"[fake, {spelt.format(here=tmp_path)}@sweep,")
    Path("conf/experiment/evil.yaml").write_text(text)
    assert main(["--config-dir", "conf", "experiment=evil"]) == 1
    said = capsys.readouterr()
    assert re.search(r"(secret|linked).* outside of the folders of options", said.err)
    assert "hunter2" not in said.out + said.err


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and is still listed does not."""
    file = Path(f"/proc/{pid}/stat")
    try:
        return file.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.usefixtures("fakes_here")
@pytest.mark.parametrize(
    "attack",
    [
        f"pipeline: {{base: {COPY}}}",
        f"name: x\npipeline: {{base: {{_target_: lab_fakes.Make, size: 1, objective: {COPY}}}}}",
        "name: !!python/object/apply:os.system ['touch trap']",
        f"hydra: {{callbacks: {{x: {COPY}}}}}\npipeline: {{base: {{_target_: lab_fakes.Make, size: 1}}}}",
        "defaults: [{override hydra/job_logging: ../evil}]\npipeline: {base: {_target_: lab_fakes.Make, size: 1}}",
    ],
    ids=["a stage", "a part of a stage", "an object of YAML", "callbacks", "defaults"],
)
def test_the_configuration_of_somebody_elses_run(attack: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf").mkdir()
    Path("conf/a").touch()
    Path("conf/config.yaml").write_text(attack)
    Path("evil.yaml").write_text(EVIL)
    main(["--config", "conf/config.yaml", "tracking=off", "hydra.run.dir=again"])
    assert "Traceback" not in capsys.readouterr().err and not Path("trap").exists()


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


# ---- files of data ---------------------------------------------------------------------------------------------------
READER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
from alignlab.data.files import Files
from alignlab.errors import DataError
for file in sys.argv[1:]:
    try:
        Files(corpus=file).documents("train")
    except DataError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_a_line_of_gigabytes_in_a_file_of_megabytes_is_refused(tmp_path: Path) -> None:
    rest = gzip.compress(b"a" * 2**24) * 192  # gzip may be in several parts: 3 GB in 3 MB
    (tmp_path / "long.jsonl.gz").write_bytes(gzip.compress(b'{"text": "') + rest)
    (tmp_path / "bytes.jsonl.gz").write_bytes(gzip.compress(b'{"text": "\xff') + rest)
    assert all(file.stat().st_size < 4 * 2**20 for file in tmp_path.iterdir())
    command = [sys.executable, "-c", READER, "long.jsonl.gz", "bytes.jsonl.gz"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    long, not_utf8, megabytes = found.stdout.splitlines()
    assert long.startswith("long.jsonl.gz has a line of more than 268435456 characters")
    assert not_utf8.startswith("bytes.jsonl.gz:1: not UTF-8")
    assert int(megabytes) < 1500


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


# ---- what libraries say ----------------------------------------------------------------------------------------------
LOOKS = "startswith endswith search match fullmatch findall finditer partition rpartition split rsplit removeprefix "
LOOKS += "removesuffix find index count replace sub"
"""Methods and functions that look into a text."""
TEXTS: Final = frozenset({"args", "msg", "message", "strerror", "problem"})
"""Attributes of an error that hold its text."""
LAYOUT: Final = frozenset({"", "'\\n'", "'\\n\\n'"})
"""Arguments of `split` and `partition` with which they look at lines and blanks only."""
READ: Final = {
    "alignlab/config/compose.py": {"text in other"},  # says a message and its cause's once where they are the same
    "alignlab/durable.py": {"words in text", "w in text"},  # torch and safetensors keep no error number of a full disk
    "alignlab/cli/search/sweeper.py": {"str(error).partition('() ')"},  # leaves out the name of a function of Optuna's
}
"""All that is looked for in the text of an error."""


def looked_for(tree: ast.AST) -> Iterator[str]:
    """Expressions that look into the text of an error."""
    errors = {h.name for h in ast.walk(tree) if isinstance(h, ast.ExceptHandler)}
    typed = [(n.arg, n.annotation) for n in ast.walk(tree) if isinstance(n, ast.arg)]
    typed += [(n.target.id, n.annotation) for n in ast.walk(tree)
              if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]  # fmt: skip
    errors |= {name for name, kind in typed if kind is not None and re.search("Error|Exception", ast.unparse(kind))}

    def is_text(node: ast.AST) -> bool:
        for part in ast.walk(node):
            if isinstance(part, ast.Call) and ast.unparse(part.func) in ("str", "repr") and part.args:
                found: ast.AST = part.args[0]
            elif isinstance(part, ast.FormattedValue) or (isinstance(part, ast.Attribute) and part.attr in TEXTS):
                found = part.value
            else:
                continue
            if isinstance(found, ast.Name) and found.id in errors:
                return True
        return False

    assigned = [(n.targets, n.value) for n in ast.walk(tree) if isinstance(n, ast.Assign)]
    texts = {ast.unparse(target) for targets, value in assigned if is_text(value) for target in targets}
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare) and not any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not _is_layout(node, node.func):
            parts = [node.func.value, *node.args] if node.func.attr in LOOKS.split() else []
        if any(is_text(part) or ast.unparse(part) in texts for part in parts):
            yield ast.unparse(node)


def _is_layout(call: ast.Call, method: ast.Attribute) -> bool:
    """Whether a call splits a text at lines or blanks, whatever the text says."""
    return method.attr in ("split", "partition") and ", ".join(map(ast.unparse, call.args)) in LAYOUT


def test_no_sentence_of_a_librarys_is_read() -> None:
    """What a library says in English changes with its version; types, attributes and its own tables do not."""
    sources = [*ROOT.glob("alignlab/**/*.py"), *ROOT.glob("plugins/alignlab_*/*.py")]
    found = {str(f.relative_to(ROOT)): set(looked_for(ast.parse(f.read_text(encoding="utf-8")))) for f in sources}
    assert {file: what for file, what in found.items() if what} == READ


@pytest.mark.parametrize(
    "mistake",
    [
        "if 'dtype' not in str(error): pass",
        "text = str(error).lower()\n    found = any(word in text for word in WORDS)",
        "found = re.search('multiple values', f'{error}')",
        "key = error.args[0].partition('To append')[0]",
        "if error.msg.startswith('Could not'): pass",
    ],
)
def test_a_sentence_that_is_read_is_found(mistake: str) -> None:
    code = "try:\n    pass\nexcept Exception as error:\n    "
    assert list(looked_for(ast.parse(code + mistake)))
    assert not list(looked_for(ast.parse(f"{code}print(' '.join(str(error).split()), str(error).partition('\\n')[0])")))


@pytest.mark.usefixtures("fakes_here")
@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ("fake, nothing", "Could not load 'experiment/nothing'"),
        ("fake, {/stage@pipeline.x: nothing}", "Could not find 'stage/nothing'"),
        ("fake, {override /tracking: nothing}", "Could not find 'tracking/nothing'"),
    ],
)
def test_hydras_search_path_is_not_in_its_messages(
    defaults: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thirty lines of folders would hide the mistake; they follow an empty line."""
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(f"# @package _global_\ndefaults: [{defaults}]\n")
    assert main(["plan", "--config-dir", "conf", "experiment=mine"]) == 1
    error = capsys.readouterr().err
    assert said in error and "provider" not in error and "file://" not in error and "earch path" not in error


# ---- processes -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_ranks_end_with_the_first_process(tmp_path: Path) -> None:
    """Nothing trains on where the same command, begun again, would train: SIGKILL of the first process ends all."""
    short = ["runtime=ddp", "pipeline.pretrain.loop.steps=40", "pipeline.pretrain.loop.save_every=1", *ONE_STAGE]
    killed = begin(tmp_path, *short)
    wait_for("pretrain", tmp_path)
    ranks = children(killed.pid)
    assert len(ranks) == 1
    killed.kill()
    killed.wait()
    limit = time.monotonic() + 5
    while alive := [rank for rank in ranks if lives(rank)]:
        assert time.monotonic() < limit, f"{alive} live on"
        time.sleep(0.1)
    finished([killed])  # closes its pipes, which the ranks had open, too
    ((code, _, error),) = finished([begin(tmp_path, *short)])
    assert code == 0, error
    assert status(tmp_path)["status"] == "completed"


@pytest.mark.slow
def test_a_closed_terminal_ends_a_sweep_and_what_is_done_is_kept(installed: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(installed), str(FAKES), *filter(None, sys.path)])
    swept = [
        "-m",
        "experiment=troubled",
        "pipeline.trouble.how=good,slow",
        "hydra.sweep.dir=sweep",
        "sweep.resume=true",
    ]
    command = [sys.executable, "-m", "alignlab", *swept]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}) as process:
        limit = time.monotonic() + 120
        while not list(tmp_path.glob(".alignlab/work/*/began")):
            assert time.monotonic() < limit and process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 128 + signal.SIGHUP
    assert [read_status(tmp_path / f"sweep/{job}") for job in range(2)] == ["completed", "preempted"]


def test_a_damaged_line_of_curves_does_not_break_a_later_run(tmp_path: Path) -> None:
    from alignlab.tracking.curves import Curves

    (tmp_path / "work").mkdir()
    (tmp_path / "work/curves.jsonl").write_bytes(b'{"step": 1, "a": 1}\n{"ste\xff\n[]\n{"step": 2, "a": 2}\n{"step": 3')
    curves = Curves(tmp_path, tmp_path / "work")
    curves.log(5, {"a": 5.0})
    curves.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "curves.jsonl").read_text().splitlines()] == [1, 2, 5]


DAMAGED = b'{"step": 1, "train/loss": 1}\n{"ste\xff\n[]\n' + b"[" * 10**5


@pytest.mark.usefixtures("fakes_here")
def test_damaged_curves_that_are_published_do_not_break_later_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """No stage reads them."""
    run = ["experiment=fake", "~pipeline.evaluate_base", "~pipeline.evaluate_tuned"]
    assert main([*run, "hydra.run.dir=one"]) == 0
    damaged = list(Path(".alignlab").rglob("curves.jsonl"))
    assert damaged
    for file in damaged:
        file.chmod(0o644)
        file.write_bytes(DAMAGED)
    assert main([*run, "hydra.run.dir=two", "pipeline.tuned.size=5"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("line", DAMAGED.splitlines()[1:], ids=["bytes", "list", "depth"])
def test_damaged_curves_do_not_break_the_report(line: bytes, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for file in tmp_path.rglob("curves.jsonl"):
        file.write_bytes(DAMAGED.splitlines(keepends=True)[0] + line)
    views = RunView.of(run)
    assert views.stages["dpo"].curves() == {"train/loss": [(1, 1.0)]}
    assert "<html" in page.render(views, "lab", datetime.datetime.now(datetime.UTC))
