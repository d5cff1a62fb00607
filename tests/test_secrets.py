"""Secrets are hidden wherever they stand, and ordinary configuration is not."""

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.config import options
from alignlab.sanitize import REDACTED, is_secret, redact, redact_logs, redact_override, redact_text

JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
KEYS = [
    "hf_" + "a" * 34, "sk-" + "a" * 40, "sk-proj-" + "a" * 40, "sk-ant-api03-" + "a" * 40, "sk_live_" + "a" * 24,
    "ghp_" + "a" * 36, "gho_" + "a" * 36, "github_pat_" + "11ABCDEFG0" + "a" * 50, "glpat-" + "a" * 20,
    "xoxb-123456789012-abcdefghijkl", "xoxp-123456789012-abcdef", "xapp-1-A0-12345678901-abc", "AIza" + "a" * 35,
    "ya29." + "a" * 40, "AKIA" + "A" * 16, "ASIA" + "A" * 16, "wandb_v1_" + "aB3_" * 12, "nvapi-" + "a" * 40,
    "r8_" + "a" * 37, "gsk_" + "a" * 40, "pypi-" + "a" * 60, "npm_" + "a" * 36, JWT, PEM, PEM.partition("-----END")[0],
]  # fmt: skip
NAMES = [
    "api_key", "apiKey", "API_KEY", "api-keys", "api_keys", "hf_token", "HF_TOKEN", "token", "tokens", "access_tokens",
    "refresh-token", "pwd", "db_pwd", "password", "passwords", "passphrase", "secret", "client_secret", "secrets",
    "clientSecret", "credentials", "authorization", "private_key", "ssh_keys", "cookie", "bearer", "aws_secret_key",
    "secret_access_key", "token_value", "auth", "key",
]  # fmt: skip
ORDINARY: dict[str, Any] = {
    "tokenizer": {"size": 512, "name": "word"}, "max_tokens": 32, "max_new_tokens": "32", "add_tokens": ["<a>", "<b>"],
    "keep": "best",
    "monkey": "banana", "keys": 3, "tokens": 4096, "token": None, "secret_told": 0.1, "sort_key": "length",
    "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "revision": "a" * 40,
    "git_commit": "0123456789abcdef0123456789abcdef01234567", "eos_token": "</s>", "pad_token_id": 0,
    "stop_tokens": ["a"],
    "special_tokens": {"eos": "</s>"}, "author": "me", "keyboard": "qwerty", "author_id": "x", "pass_rate": 0.5,
    "note": "the commit 0123456789abcdef0123456789abcdef01234567 of main", "path": "/a/sk-1",
    "model": "Qwen/Qwen3-0.6B",
    "url": "https://example.org/a?page=2&sort=key#token", "mail": "ask me@example.org: at 8", "eyJ": "eyJ.a.b",
    "text": "sk-learn and hf_hub, ghp_ or AKIA", "ratio": "1:2@3", "use_auth": False, "sha256": "b" * 64,
    "ssh": "git@host:x",
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key[:12].replace("\n", " "))
def test_a_key_is_known_by_its_form_wherever_it_stands(key: str) -> None:
    for text in (key, f"use {key} for it", f"[{key}]", f"https://example.org/{key}/x", f'{{"a": "{key}"}}'):
        assert key not in redact_text(text) and REDACTED in redact_text(text)
    assert key not in str(redact({"a": [{"b": (key, 1)}], f"x {key}": 1})), "also in a list, and as a name"
    assert key not in redact_override(f"+pipeline.base.note='{key}'")


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_below_a_secret_name_is_secret(name: str) -> None:
    given = {name: {"a": ["hunter2", {"b": "hunter2", "c": None, "d": True}], "e": ""}}
    assert redact(given) == {name: {"a": [REDACTED, {"b": REDACTED, "c": None, "d": True}], "e": ""}}
    assert redact({name: "hunter2"}) == {name: REDACTED} and redact({name: ["hunter2"]}) == {name: [REDACTED]}
    assert redact_override(f"a.{name}=hunter2") == f"a.{name}={REDACTED}"
    assert "hunter2" not in redact_override(f"a.{name}.b=hunter2") + redact_override(f"a={{{name}: hunter2}}")


def test_a_password_may_be_a_number() -> None:
    assert redact({"pwd": 12345, "password": 1}) == {"pwd": REDACTED, "password": REDACTED}
    assert redact_override("a.pwd=12345") == f"a.pwd={REDACTED}" and redact_override("a.tokens=5") == "a.tokens=5"


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter2@example.org/x", "postgresql://me:hunter2@host:5432/db", "https://:hunter2@example.org",
        "https://example.org/x?token=hunter2", "https://h/x?a=1&api_key=hunter2&b=2",
        "https://h/x?X-Amz-Signature=hunter2", "https://h/x?sig=hunter2", "https://h/#access_token=hunter2",
        "Authorization: Bearer hunter2hunter2",
    ],
)  # fmt: skip
def test_an_address_keeps_all_but_its_secrets(text: str) -> None:
    assert "hunter2" not in redact_text(text) and REDACTED in redact_text(text)
    assert "hunter2" not in redact_override(f"url={text}")


def test_an_old_key_of_wandb_is_told_from_a_commit() -> None:
    """Both are 40 hexadecimal digits: alone it is a key, unless its name says otherwise; in a text, by the words."""
    key = "0123456789abcdef0123456789abcdef01234567"
    assert redact({"x": key, "wandb": [key]}) == {"x": REDACTED, "wandb": [REDACTED]}
    assert redact_text(f"wandb login {key}") == f"wandb login {REDACTED}"
    assert redact({"revision": key, "commit": key}) == {"revision": key, "commit": key}


def test_ordinary_configuration_is_kept() -> None:
    assert redact(ORDINARY) == ORDINARY
    for name, value in ORDINARY.items():
        if isinstance(value, str | int):
            assert redact_override(f"a.{name}={value}") == f"a.{name}={value}"


def test_no_setting_of_our_own_is_taken_for_a_secret() -> None:
    for option in options.options():
        content = yaml.safe_load(option.text()) or {}
        assert redact(content) == _by_text(content), f"{option.file}: {[k for k in content if is_secret(str(k))]}"


def test_redacting_is_quick_on_long_texts() -> None:
    """A pattern that tries again from every letter would take hours on these, and not reach the key behind them."""
    key = "ghp_" + "a1B2" * 9
    for text in (
        "a" * 10**6,
        "eyJ" * 10**5,
        "https://" + "a:" * 10**5,
        "sk- " * 10**5,
        "-----BEGIN " * 10**4,
        "=" * 10**5,
    ):
        assert redact_text(f"{text} {key}") == f"{text} {REDACTED}"
        assert redact_override(f"a={text}") == f"a={text}"


def _by_text(node: Any) -> Any:
    """The same with names as texts, as `redact` returns them."""
    if isinstance(node, dict):
        return {str(key): _by_text(value) for key, value in node.items()}
    return [_by_text(value) for value in node] if isinstance(node, list) else node


def test_every_form_has_its_line_here() -> None:
    source = Path(options.__file__).parents[1] / "sanitize.py"
    forms = source.read_text(encoding="utf-8").partition("_FORMS: Final")[2].partition('"""')[0]
    assert forms.count('r"') <= len(KEYS)


# ---- where it would be recorded --------------------------------------------------------------------------------------
TYPED, SAID = "ghp_" + "c" * 36, "hf_" + "s" * 34
"""In the configuration; in what a model answers."""


def record(root: Path, recorders: dict[str, Any]) -> Path:
    """Record a stage whose configuration and samples hold a key each; its folder."""
    from alignlab.samples import write_samples
    from alignlab.tracking import Origin, StageInfo, Tracking

    (folder := root / "stage").mkdir()
    config = {"api_key": "hunter2hunter2", "note": f"use {TYPED}", "beta": 0.5, "list": [{"deep": TYPED}]}
    run = Origin("lab", config={"pipeline": {"dpo": config}}, overrides=[f"dpo.note='use {TYPED}'"], folder=root)
    tracking = Tracking(progress=False, recorders=recorders)
    with tracking.run(run), tracking.stage(StageInfo("dpo", "0" * 64, folder=folder, config=config)) as tracker:
        tracker.log(1, {"train/loss": 0.5})
        tracker.table("shown", [{"prompt": "who?", "answer": f"it is {SAID}", "length": 3}])
        write_samples(folder, [{"prompt": f"{SAID}?", "answer": f"it is {SAID}", "tokens": 3, "scores": {"a": [SAID]}}])
        tracker.summary({"accuracy": 0.5})
    return folder


def leaks(text: str) -> list[str]:
    return [secret for secret in (TYPED, SAID, "hunter2") if secret in text]


def test_samples_and_curves_hold_no_key(tmp_path: Path) -> None:
    folder = record(tmp_path, {})
    (row,) = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    hidden = f"it is {REDACTED}"
    assert row == {"prompt": f"{REDACTED}?", "answer": hidden, "tokens": 3, "scores": {"a": [REDACTED]}}
    assert json.loads((folder / "curves.jsonl").read_text()) == {"step": 1, "train/loss": 0.5}


def test_every_writer_of_samples_redacts() -> None:
    root = Path(options.__file__).parents[2]
    sources = [*root.glob("alignlab/**/*.py"), *root.glob("plugins/alignlab_*/*.py")]
    writers = [f.name for f in sources if re.search(r"write_lines\([^\n]*SAMPLES", f.read_text(encoding="utf-8"))]
    assert writers == ["samples.py"]


def test_wandb_receives_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb_records import head_of, offline_records

    from alignlab.tracking import Wandb

    for name in ("WANDB_API_KEY", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    record(tmp_path, {"wandb": Wandb("offline", folder=tmp_path / "lab")})
    (records,) = offline_records(tmp_path / "lab")
    assert head_of(records)["config"]["update"]["note"] == f"use {REDACTED}"
    assert leaks(json.dumps(records)) == []
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert any(f.name.endswith(".table.json") for f in files), "samples were sent"
    assert {str(f): found for f in files if (found := leaks(f.read_bytes().decode(errors="ignore")))} == {}


def test_tensorboard_receives_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="an extra: alignlab[tensorboard]")
    from alignlab.tracking import TensorBoard

    monkeypatch.chdir(tmp_path)
    record(tmp_path, {"tensorboard": TensorBoard()})
    events = b"".join(f.read_bytes() for f in tmp_path.rglob("events.out.tfevents.*"))
    assert b"_hparams_" in events and events.count(REDACTED.encode()) + events.count(b"&lt;redacted") >= 3
    assert leaks(events.decode(errors="ignore")) == []


def test_the_report_shows_no_key(tmp_path: Path) -> None:
    """Also of artifacts that somebody else made, or an older version."""
    import datetime

    from report_run import make_run

    from alignlab.report.page import render
    from alignlab.report.run import RunView

    run = make_run(tmp_path)
    for file in [*tmp_path.rglob("samples.jsonl"), *tmp_path.rglob("preferences.jsonl")]:
        file.write_text(file.read_text().replace("oslo", f"oslo {SAID}"))
    for file in tmp_path.rglob("manifest.json"):
        file.write_text(file.read_text().replace('"beta": 0.1', f'"beta": 0.1, "note": "{TYPED}"'))
    run = {name: dataclasses.replace(made, manifest=json.loads((made.path / "manifest.json").read_text()))
           for name, made in run.items()}  # fmt: skip
    page = render(RunView.of(run), f"lab {TYPED}", datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))
    assert leaks(page) == [] and page.count("&lt;redacted&gt;") >= 5


def test_log_records_are_made_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogRecordFactory()
    try:
        redact_logs()
        redact_logs()
        logging.getLogger("some.launcher").warning("#%d : objective.beta=0.1 my.api_key=hunter2 %s", 0, "seed=3\x1b[2J")
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.messages == ["#0 : objective.beta=0.1 my.api_key=<redacted> seed=3\ufffd[2J"]
