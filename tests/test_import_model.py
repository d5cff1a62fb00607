"""stage=import_model: a model from a folder or the hub becomes an artifact; weights are links, and checked once."""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from architectures import config
from chat_templates import CHATML, bpe
from model_folders import edit, llama, rewrite, save
from torch import Tensor
from transformers import AutoModelForCausalLM, GPTJConfig

from alignlab import digests
from alignlab.artifact import Artifact
from alignlab.batch import TokenBatch
from alignlab.cli.app import main
from alignlab.config import compose
from alignlab.config.experiment import check
from alignlab.data.builtin_templates import BUILT_IN
from alignlab.data.chat import encode_answer, encode_prompt
from alignlab.data.records import Message, Prompt
from alignlab.errors import AlignlabError, ConfigError, StoreError
from alignlab.models import Imported, ImportModel
from alignlab.pipeline.store import Store
from alignlab.policy import Policy
from alignlab.stage import NullTracker, StageContext
from alignlab.testing import Check, conforms_stage


class Notes(NullTracker):
    """Keeps what a stage says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def bring_in(store: Path, notes: Notes | None = None, **asked: Any) -> Artifact:
    """The artifact of a model, made or found."""
    stage = ImportModel(memory=str(store), **asked)
    key = digests.hashlib.sha256(f"{stage.content_digest()}{sorted(map(str, asked.items()))}".encode()).hexdigest()

    def build(folder: Path, work: Path) -> dict[str, Any]:
        stage.run({}, StageContext("base", folder, work, tracker=notes or Notes()))
        return {"kind": "policy"}

    return Store(store).get_or_build(key, build)[0]


def logits(policy: Policy) -> Tensor:
    with torch.no_grad():
        found: Tensor = policy.model(input_ids=torch.tensor([[1, 5, 7, 11, 3]])).logits
    return found


# ---- weights ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shards", [1, 3])
def test_weights_are_links_and_the_rest_is_copied(shards: int, tmp_path: Path) -> None:
    given = save(tmp_path / "given", config("llama"), max_shard_size="1GB" if shards == 1 else "30KB")
    (given / "README.md").write_text("not part of it")
    (given / "pytorch_model.bin").write_bytes(b"never read")
    notes = Notes()
    made = bring_in(tmp_path / "store", notes, name_or_path=str(given))
    weights = sorted(given.glob("*.safetensors"))
    assert len(weights) >= shards and made.kind == "policy"
    assert {f.name for f in made.path.iterdir() if f.is_symlink()} == {f.name for f in weights}
    assert all((made.path / f.name).resolve() == f for f in weights)
    assert not (made.path / "README.md").exists() and not (made.path / "pytorch_model.bin").exists()
    assert torch.equal(logits(Policy.load(made)), logits(Policy.load(given)))
    assert "LlamaForCausalLM" in notes.said[0] and f"linked to {given}" in notes.said[0]


def test_a_linked_file_is_read_once_and_known_by_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SETTLED", -1.0)  # as if its files were older
    given, store = llama(tmp_path / "given"), tmp_path / "store"
    made = bring_in(store, name_or_path=str(given))
    monkeypatch.setattr(digests, "_KNOWN", {})  # another process
    monkeypatch.setattr(digests, "digest_of_file", lambda path: pytest.fail(f"reads {path}"))
    ImportModel(name_or_path=str(given), memory=str(store)).content_digest()
    for digest in made.manifest["files"].values():
        assert len(digest) == 64
    assert "model.safetensors" not in made.manifest["files"] and "model.safetensors" in made.manifest["links"]
    made.verify()


def test_weights_that_move_change_or_are_touched(tmp_path: Path) -> None:
    given = llama(tmp_path / "given")
    made = bring_in(tmp_path / "store", name_or_path=str(given))
    file, content = given / "model.safetensors", (given / "model.safetensors").read_bytes()
    os.utime(file, (1, 1))
    made.verify()  # another time, the same content
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, (2, 2))
    with pytest.raises(StoreError, match=f"{file} has changed since it was imported; delete {made.path} and run again"):
        made.verify()
    file.unlink()
    with pytest.raises(StoreError, match=f"is a link to {file}, which is gone; put it back"):
        made.verify()


def test_what_identifies_a_folder_is_its_content(tmp_path: Path) -> None:
    given = llama(tmp_path / "given")
    there = Path(shutil.copytree(given, tmp_path / "there"))
    (there / "README.md").write_text("more")

    def digest(folder: Path, **asked: Any) -> str:
        return ImportModel(name_or_path=str(folder), **asked).content_digest()

    before = digest(given)
    assert digest(there) == before
    assert digest(given, chat_template="plain") != before
    rewrite(there, lambda t: {k: v + 1 for k, v in t.items()})
    assert digest(there) != before
    edit(given / "tokenizer_config.json", lambda c: c.update(model_max_length=9))
    assert digest(given) != before


def test_type_and_attention_go_along_with_the_model_and_with_what_is_trained_from_it(tmp_path: Path) -> None:
    given = llama(tmp_path / "given")
    made = bring_in(tmp_path / "store", name_or_path=str(given), dtype="bfloat16", attention="eager")
    assert not (made.path / "model.safetensors").is_symlink(), "another type is written, once"
    assert {t.dtype for t in safetensors.torch.load_file(made.path / "model.safetensors").values()} == {torch.bfloat16}
    loaded = Policy.load(made, torch.float32)
    assert loaded.model.dtype == torch.bfloat16 and loaded.model.config._attn_implementation == "eager"
    loaded.save(tmp_path / "trained")
    again = Policy.load(tmp_path / "trained", torch.float32)
    assert again.model.dtype == torch.bfloat16 and again.model.config._attn_implementation == "eager"
    stored = bring_in(tmp_path / "store", name_or_path=str(given), dtype="float32")
    assert (stored.path / "model.safetensors").is_symlink(), "that is its type already"
    auto = bring_in(tmp_path / "store", name_or_path=str(tmp_path / "trained"), dtype="auto")
    assert (auto.path / "model.safetensors").is_symlink()
    assert Policy.load(llama(tmp_path / "other")).model.config._attn_implementation == "sdpa"


def test_whoever_trains_all_weights_in_half_precision_is_told_what_is_lost(tmp_path: Path) -> None:
    policy = Policy.load(bring_in(tmp_path / "store", name_or_path=str(llama(tmp_path / "given")), dtype="bfloat16"))
    assert "trained in bfloat16, as the model was imported: steps below 0.39 % of a weight" in policy.narrower_than(
        torch.float32
    )
    assert policy.narrower_than(torch.bfloat16) == Policy.load(tmp_path / "given").narrower_than(torch.float64) == ""


def test_an_attention_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    given = llama(tmp_path / "given")
    with pytest.raises(StoreError, match="its model with attention flash_attention_2 cannot be loaded") as refused:
        bring_in(tmp_path / "store", name_or_path=str(given), attention="flash_attention_2")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("nested", [False, True])
def test_kernels_of_a_repository_are_never_run(key: str, nested: bool, tmp_path: Path) -> None:
    """transformers downloads and runs what a config names; `kernels-community` is only its default."""
    given = llama(tmp_path / "given")
    own = {key: "somebody/kernels"}
    edit(given / "config.json", lambda c: c.update({"text_config": own} if nested else own))
    with pytest.raises(StoreError, match=f"{key} is 'somebody/kernels', code from a repository, which is never run"):
        Policy.load(given)


@pytest.mark.parametrize(
    "settings", [["eager"], {"attention": "somebody/kernels"}, {"dtype": "int8"}, {"more": "eager"}]
)
def test_settings_that_are_not_ours_are_refused(settings: Any, tmp_path: Path) -> None:
    given = llama(tmp_path / "given")
    edit(given / "config.json", lambda c: c.update(alignlab=settings))
    with pytest.raises(StoreError, match=r"config\.json: alignlab must hold dtype and attention"):
        Policy.load(given)


def test_what_cannot_be_used_is_refused_here(tmp_path: Path) -> None:
    broken = llama(tmp_path / "broken")
    rewrite(broken, lambda t: {k: v for k, v in t.items() if "layers.1" not in k})
    with pytest.raises(StoreError, match="tensors are missing"):
        bring_in(tmp_path / "store", name_or_path=str(broken))
    policy = Policy.load(llama(tmp_path / "scores"))
    policy.add_score_head(0)
    policy.save(tmp_path / "reward")
    with pytest.raises(StoreError, match="is a reward model; name its folder as the input `reward` of a stage"):
        bring_in(tmp_path / "store", name_or_path=str(tmp_path / "reward"))
    assert not list((tmp_path / "store").rglob("manifest.json"))


# ---- tokens and templates --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tie", [True, False])
def test_new_tokens_get_the_mean_of_the_old_rows(tie: bool, tmp_path: Path) -> None:
    tokenizer = bpe(None)
    given = save(tmp_path / "given", config("llama") if not tie else config("qwen3"), tokenizer)
    if tie:
        edit(given / "config.json", lambda c: c.update(tie_word_embeddings=True))
        rewrite(given, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    new = [f"<{i}>" for i in range(448 - len(tokenizer) + 3)]  # more than the embedding has rows
    old = Policy.load(given)
    made = bring_in(tmp_path / "store", name_or_path=str(given), chat_template="plain", add_tokens=new)
    policy, known = Policy.load(made), len(tokenizer)
    tables = [policy.model.get_input_embeddings().weight, policy.model.get_output_embeddings().weight]
    before = [old.model.get_input_embeddings().weight, old.model.get_output_embeddings().weight]
    assert (tables[0] is tables[1]) == tie and len(policy.tokenizer) == len(tables[0]) == known + len(new)
    for table, was in zip(tables, before, strict=True):
        assert torch.equal(table[:known], was[:known])
        torch.testing.assert_close(table[known:], was[:known].mean(0).expand(len(new), -1))
    assert [policy.tokenizer.encode(t, add_special_tokens=False) for t in new] == [[known + i] for i in range(len(new))]
    torch.testing.assert_close(logits(policy)[..., :known], logits(old)[..., :known])
    assert AutoModelForCausalLM.from_pretrained(made.path).config.vocab_size == len(tables[0])


def test_a_head_with_a_bias_of_its_own_grows_with_it(tmp_path: Path) -> None:
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "rotary_dim": 4}
    given = save(tmp_path / "given", GPTJConfig(vocab_size=len(bpe(CHATML)), **shape))
    rewrite(given, lambda t: {k: torch.arange(float(len(v))) if k == "lm_head.bias" else v for k, v in t.items()})
    policy = Policy.load(bring_in(tmp_path / "store", name_or_path=str(given), add_tokens=["<new>"]))
    bias: Any = policy.model.get_output_embeddings().bias
    assert float(bias[-1].detach()) == pytest.approx((len(bias) - 2) / 2)


def test_a_base_model_becomes_one_for_conversations(tmp_path: Path) -> None:
    """Its template's tokens are control tokens, other new ones are words, and nothing is written twice."""
    base: Any = bpe(None)
    state = json.loads(base.backend_tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if "im_" not in t["content"]]
    given = save(tmp_path / "given", config("llama"), base)
    (given / "tokenizer.json").write_text(json.dumps(state))
    for file in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (given / file).is_file():
            edit(given / file, lambda c: c.pop("added_tokens_decoder", None))
    asked = {"name_or_path": str(given), "chat_template": "chatml"}
    with pytest.raises(
        StoreError, match=r"writes <\|im_start\|>, <\|im_end\|>, which .* set add_tokens=\['<\|im_start"
    ):
        bring_in(tmp_path / "store", **asked)
    made = bring_in(tmp_path / "store", **asked, add_tokens=["<|im_start|>", "<|im_end|>", "<ecg>"])
    tokenizer = Policy.load(made).tokenizer
    ids, mask = encode_answer(tokenizer, Prompt.user("cat"), "a <ecg> yes")
    trained = [i for i, m in zip(ids, mask, strict=True) if m]
    assert tokenizer.decode(trained) == "a <ecg> yes<|im_end|>"
    assert tokenizer.decode(ids, skip_special_tokens=True).replace("\n", " ").split() == [
        "user",
        "cat",
        "assistant",
        "a",
        "<ecg>",
        "yes",
    ]


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_a_built_in_template_can_be_split_at_the_answer(name: str) -> None:
    tokenizer = bpe(BUILT_IN[name])
    prompt = Prompt(
        (Message("system", "the cat"), Message("user", "cat"), Message("assistant", "yes"), Message("user", "no"))
    )
    ids, mask = encode_answer(tokenizer, prompt, "the mat")
    messages = [{"role": m.role, "content": m.content} for m in (*prompt.messages, Message("assistant", "the mat"))]
    assert tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)[: len(ids)] == ids
    last = [i for i, m in zip(ids, mask, strict=True) if m]
    assert tokenizer.decode(last).strip() in ("the mat<|im_end|>", "the mat<eos>")


def test_a_template_file_replaces_the_tokenizers_own(tmp_path: Path) -> None:
    given, file = llama(tmp_path / "given"), tmp_path / "mine.jinja"
    edit(given / "tokenizer_config.json", lambda c: c.update(chat_template="{{ old }}"))
    (given / "chat_template.json").write_text(json.dumps({"chat_template": "{{ older }}"}))
    file.write_text(CHATML.replace("<|im_start|>", "<|start|>"))
    made = bring_in(tmp_path / "store", name_or_path=str(given), chat_template=str(file))
    tokenizer = Policy.load(made).tokenizer
    assert tokenizer.chat_template == file.read_text()
    listed = json.loads((made.path / "generation_config.json").read_text())["eos_token_id"]
    assert set(listed) == Policy.load(made).stop_ids and (made.path / "model.safetensors").is_symlink()
    assert "<|start|>user" in tokenizer.decode(encode_prompt(tokenizer, Prompt.user("cat")))


# ---- the hub ---------------------------------------------------------------------------------------------------------
NAME, COMMIT = "org/tiny-llama", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


def put_in_cache(cache: Path, commit: str = COMMIT, revision: str = "main") -> Path:
    """A model as the hub's own client stores it: blobs by digest, links in a snapshot."""
    folder = cache / "models--org--tiny-llama"
    snapshot = folder / "snapshots" / commit
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    for file in llama(cache.parent / "made").iterdir():
        digest = digests.digest_of_file(file)
        shutil.copyfile(file, folder / "blobs" / digest)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / digest)
    return snapshot


def offline(name: str, **asked: Any) -> Any:
    raise AssertionError(f"asks the hub for {name}")


def refusing(make: Callable[[], Exception]) -> Callable[..., Any]:
    def model_info(self: Any, name: str, **asked: Any) -> Any:
        assert asked["timeout"] <= 10
        raise make()

    return model_info


def test_a_model_in_the_cache_needs_no_network(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = put_in_cache(hub)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, name, **asked: offline(name))
    monkeypatch.setattr(digests, "digest_of_file", lambda path: pytest.fail(f"reads {path}: a commit says it all"))
    stage = ImportModel(name_or_path=NAME)
    assert (
        stage.content_digest() == f"commit {COMMIT}" == ImportModel(name_or_path=NAME, revision=COMMIT).content_digest()
    )
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    made = bring_in(tmp_path / "store", name_or_path=NAME)
    link = made.manifest["links"]["model.safetensors"]
    assert link["target"] == str((snapshot / "model.safetensors").resolve()) and link["sha256"] in link["target"]
    assert torch.equal(logits(Policy.load(made)), logits(Policy.load(tmp_path / "made")))


def response(status: int) -> Any:
    import httpx2

    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co"))


def errors() -> dict[str, tuple[Callable[[], Exception], str]]:
    from huggingface_hub import errors as kinds

    return {
        "offline": (lambda: kinds.OfflineModeIsEnabled("no"), "HF_HUB_OFFLINE forbids to ask the hub for it"),
        "network": (lambda: OSError("Name or service not known"), r"the hub cannot be reached \(Name or service not"),
        "gated": (lambda: kinds.GatedRepoError("no", response=response(403)), "it is gated: accept its terms on https"),
        "private": (
            lambda: kinds.RepositoryNotFoundError("no", response=response(404)),
            "none of that name, or it is private",
        ),
        "revision": (
            lambda: kinds.RevisionNotFoundError("no", response=response(404)),
            "the hub has no revision 'v1' of it",
        ),
    }


@pytest.mark.parametrize("kind", ["offline", "network", "gated", "private", "revision"])
def test_what_is_not_here_is_one_message_with_what_to_do(
    kind: str, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make, why = errors()[kind]
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refusing(make))
    with pytest.raises(StoreError, match=f"{NAME} is not on this machine .*{why}") as refused:
        ImportModel(name_or_path=NAME, revision="v1").content_digest()
    assert f"run `hf download {NAME} --revision v1 --local-dir tiny-llama`" in str(refused.value)
    if kind == "offline":
        store = tmp_path / "store"
        asked = ["experiment=train", "stage=import_model", f"stage.name_or_path={NAME}", f"store_dir={store}"]
        assert main(["plan", *asked]) == 1
        said = capfd.readouterr().err
        assert "HF_HUB_OFFLINE" in said and "Traceback" not in said
        assert not store.exists()


def test_pickled_weights_on_the_hub_are_refused_before_anything_is_downloaded(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sibling:
        rfilename = "pytorch_model.bin"

    class Info:
        sha, siblings = COMMIT, (Sibling(),)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, name, **asked: Info())
    with pytest.raises(StoreError, match=rf"{NAME} has no safetensors weights on the hub \(pytorch_model\.bin\)"):
        ImportModel(name_or_path=NAME).content_digest()


def test_a_model_of_the_hub_is_downloaded_by_its_commit(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sibling:
        rfilename = "model.safetensors"

    class Info:
        sha, siblings = COMMIT, (Sibling(),)

    def snapshot_download(name: str, revision: str, allow_patterns: list[str]) -> str:
        assert (name, revision) == (NAME, COMMIT) and "*.safetensors" in allow_patterns
        assert not {"*.bin", "*.py", "*"} & set(allow_patterns)
        return str(put_in_cache(hub))

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, name, **asked: Info())
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    made = bring_in(tmp_path / "store", name_or_path=NAME)
    assert Policy.load(made) and made.manifest["links"]


def test_a_download_that_stopped_half_way_is_not_taken_for_the_model(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (put_in_cache(hub) / "model.safetensors").unlink()
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refusing(lambda: OSError("no route")))
    with pytest.raises(StoreError, match="is not on this machine"):
        ImportModel(name_or_path=NAME).content_digest()


# ---- what is asked for -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name_or_path": " "}, "name_or_path is empty"),
        ({"add_tokens": ["<a>", " "]}, "add_tokens holds ' '; a token needs a text"),
        ({"chat_template": "chatlm"}, "neither a file that can be read nor one of chatml, plain; did you mean chatml"),
        ({"name_or_path": ".", "revision": "main"}, "revision 'main' belongs to a name on the hub, not to a folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Imported: .*{message}"):
        Imported(**{"name_or_path": NAME, **asked})


@pytest.mark.parametrize("name", ["./missing", "/missing", "a/b/c", "models/", "~/nothing here"])
def test_a_folder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(AlignlabError, match="no such folder; name_or_path is a folder in Hugging Face layout, or a na"):
        ImportModel(name_or_path=name).content_digest()


def test_a_missing_name_is_asked_for_by_its_key() -> None:
    overrides = ["experiment=align", "data.preferences=a.jsonl"]
    with compose.session(overrides) as hydra, pytest.raises(ConfigError) as refused:
        check(hydra.compose(overrides), overrides)
    assert str(refused.value) == "model.name_or_path: needs a value; set model.name_or_path=..."


def test_statistics_of_an_imported_model_are_those_of_its_folder(tmp_path: Path) -> None:
    given = save(tmp_path / "given", config("cohere"))
    made = bring_in(tmp_path / "store", name_or_path=str(given))
    batch = TokenBatch.of([[1, 5, 9, 4]], [[False, True, True, True]])
    found = [Policy.load(m).token_stats(batch, frozenset({"logp"})).logp for m in (made, given)]
    assert torch.equal(*found)


# ---- as any stage ----------------------------------------------------------------------------------------------------
@functools.cache
def conforming() -> str:
    """A folder that stays for all checks."""
    return str(llama(Path(tempfile.mkdtemp(prefix="import-")) / "given"))


NO_TRAINING = dict.fromkeys(
    ("memory_budget_changes_nothing", "the_stop_token_is_scored", "the_reference_stays", "batches_hold_what_was_given"),
    "trains no policy",
)


@conforms_stage(
    lambda: ImportModel(name_or_path=conforming()), skip={**NO_TRAINING, "reports_progress": "is done at once"}
)
def test_it_is_a_stage_like_any_other(check: Check) -> None:
    check()
