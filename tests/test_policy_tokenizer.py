"""The tokenizer of a folder: the ids that its files give, now and after it is published; and its stop tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import CHATML, LLAMA_2, bpe
from model_folders import SIZE, edit, llama, save
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config

from alignlab.data.chat import encode_answer, encode_text
from alignlab.data.records import Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import StoreError
from alignlab.policy import Policy, Sampling, generate, tokenizer_files


@pytest.fixture(autouse=True)
def _nothing_was_checked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "_CHECKED", set())


# ---- the same ids ----------------------------------------------------------------------------------------------------
def test_a_tokenizer_that_its_models_class_would_change_is_refused(tmp_path: Path) -> None:
    """Qwen 2's class has its own pre-tokenizer, whatever tokenizer.json says."""
    save(tmp_path, Qwen2Config(**SIZE))
    text = "River 2 is the Rhine."
    given = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    assert given != AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"], "silently"
    with pytest.raises(
        StoreError, match=r"reads its tokenizer\.json as another tokenizer \(Qwen2Tokenizer\): '.*' becom"
    ):
        Policy.load(tmp_path)


def test_one_that_it_would_not_change_is_taken(tmp_path: Path) -> None:
    tokenizer: Any = bpe(CHATML)
    save(tmp_path / "first", Qwen2Config(**SIZE), tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "first")  # Qwen 2's own pre-tokenizer
    policy = Policy.load(save(tmp_path / "second", Qwen2Config(**SIZE), theirs))
    raw = Tokenizer.from_file(str(tmp_path / "second" / "tokenizer.json"))
    text = "River 2 is the Rhine."
    assert encode_text(policy.tokenizer, text) == raw.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("change", ["normalizer", "pre_tokenizer", "merges", "decoder"])
def test_any_difference_from_the_file_is_found(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = llama(tmp_path)
    read = tokenizer_files._read

    def altered(path: Path) -> Any:
        found = read(path)
        state = json.loads(found.backend_tokenizer.to_str())
        state["normalizer"] = {"type": "Lowercase"} if change == "normalizer" else None
        state["decoder"] = None if change == "decoder" else state["decoder"]
        state["model"]["merges"] = state["model"]["merges"][:-5] if change == "merges" else state["model"]["merges"]
        found._tokenizer = Tokenizer.from_str(json.dumps(state))
        if change == "pre_tokenizer":
            found._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        return found

    monkeypatch.setattr(tokenizer_files, "_read", altered)
    with pytest.raises(StoreError, match="as another tokenizer"):
        Policy.load(folder)


@pytest.mark.parametrize("loses", ["strip", "template", "token"])
def test_a_tokenizer_that_would_be_published_as_another_is_refused(
    loses: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = bpe(CHATML)
    tokenizer.add_tokens([AddedToken("<|strips|>", special=True, lstrip=True)])
    save(tmp_path, LlamaConfig(**SIZE), tokenizer)
    assert Policy.load(tmp_path)
    monkeypatch.setattr(tokenizer_files, "_CHECKED", set())
    read = tokenizer_files._read

    def altered(path: Path) -> Any:
        if path != tmp_path:
            changes = {
                "strip": lambda c: [t.update(lstrip=False) for t in c["added_tokens"]],
                "token": lambda c: c["added_tokens"].pop(),
            }
            if loses == "template":
                (path / "chat_template.jinja").write_text("{{ messages }}")
            else:
                edit(path / "tokenizer.json", changes[loses])
                for name in ("tokenizer_config.json", "special_tokens_map.json"):
                    edit(path / name, lambda c: c.clear()) if (path / name).exists() else None
        return read(path)

    monkeypatch.setattr(tokenizer_files, "_read", altered)
    with pytest.raises(StoreError, match="would publish another tokenizer than it read"):
        Policy.load(tmp_path)


def test_policy_and_reference_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = llama(tmp_path / "a"), llama(tmp_path / "b")
    Policy.load(first)
    monkeypatch.setattr(tokenizer_files, "_check_round_trip", None)
    Policy.load(second)
    edit(second / "tokenizer_config.json", lambda c: c.update(pad_token="<unk>"))
    with pytest.raises(TypeError):
        Policy.load(second)


def test_a_tokenizer_that_knows_no_letters_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    words: Any = TrainTokenizer("word", 50).train(["yes no cat"])
    raw = json.loads(words.backend_tokenizer.to_str())
    raw["model"]["unk_token"] = "[none]"
    words._tokenizer = Tokenizer.from_str(json.dumps(raw))
    assert Policy.load(save(tmp_path, LlamaConfig(**SIZE), words))


# ---- its size --------------------------------------------------------------------------------------------------------
def test_tokens_without_an_embedding_are_named(tmp_path: Path) -> None:
    tokenizer = bpe(CHATML)
    tokenizer.add_tokens([AddedToken(f"<|more_{i}|>", special=True) for i in range(SIZE["vocab_size"])])
    save(tmp_path, LlamaConfig(**SIZE), tokenizer)
    with pytest.raises(
        StoreError, match=r"embedding has 448 rows, and \d+ of .*'<\|more_\d+\|>'.*resize_token_embeddings"
    ):
        Policy.load(tmp_path)


def test_a_folder_without_a_tokenizer_is_one_message(tmp_path: Path) -> None:
    for file in [f for f in llama(tmp_path).iterdir() if "token" in f.name or "template" in f.name]:
        file.unlink()
    with pytest.raises(StoreError, match=f"{tmp_path}: its tokenizer cannot be loaded"):
        Policy.load(tmp_path)


# ---- stop tokens -----------------------------------------------------------------------------------------------------
def stops_listed(folder: Path) -> Any:
    return json.loads((folder / "generation_config.json").read_text())["eos_token_id"]


@pytest.mark.parametrize("listed", [None, 2, [2, 5]])
def test_what_is_trained_stops_sampling_and_is_listed_in_the_artifact(listed: Any, tmp_path: Path) -> None:
    """<|im_end|> ends turns, EOS is <eos>, and config.json lists whatever it lists."""
    policy = Policy.load(llama(tmp_path, eos_token_id=listed))
    end, eos = policy.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<eos>"])
    expected = [end, eos, *([5] if isinstance(listed, list) else [])]
    assert policy.stop_ids == set(expected) and eos == 2
    assert encode_answer(policy.tokenizer, Prompt.user("cat"), "yes")[0][-1] == end
    policy.save(tmp_path / "published")
    assert stops_listed(tmp_path / "published") == expected
    assert Policy.load(tmp_path / "published").stop_ids == policy.stop_ids


def test_transformers_generate_stops_where_ours_does(tmp_path: Path) -> None:
    policy = Policy.load(llama(tmp_path, eos_token_id=None))
    end = policy.tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():  # a model that says <|im_end|> after everything
        embedding: Any = policy.model.get_input_embeddings()
        embedding.weight.zero_()
        embedding.weight[:, 0] = 1.0
        embedding.weight[end, 0] = 3.0
    (sample,) = generate(policy, [Prompt.user("cat")], Sampling(temperature=0, max_new_tokens=9), seed=0)
    assert sample.answer_ids == (end,) and sample.finished
    policy.save(tmp_path / "published")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "published")
    ids = torch.tensor([sample.prompt_ids])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False, pad_token_id=0)
    assert found[0, ids.shape[1] :].tolist() == [end]


def test_a_generation_config_that_transformers_would_not_save_loses_no_model(tmp_path: Path) -> None:
    """As published for Llama 2: a temperature, and no sampling to use it."""
    llama(tmp_path)
    edit(tmp_path / "generation_config.json", lambda c: c.update(temperature=0.9, top_p=0.6, do_sample=False))
    policy = Policy.load(tmp_path)
    policy.save(tmp_path / "published")
    assert stops_listed(tmp_path / "published")[0] == policy.tokenizer.convert_tokens_to_ids("<|im_end|>")
    policy.model.generation_config.max_new_tokens = 7  # changed by somebody, so it would be checked strictly
    policy.save(tmp_path / "changed")
    assert Policy.load(tmp_path / "changed").stop_ids == policy.stop_ids


def test_a_template_that_ends_turns_with_eos_changes_nothing(tmp_path: Path) -> None:
    policy = Policy.load(save(tmp_path, LlamaConfig(**SIZE), bpe(LLAMA_2)))
    before = (tmp_path / "generation_config.json").read_bytes()
    policy.save(tmp_path / "published")
    assert policy.stop_ids == {2} and (tmp_path / "published" / "generation_config.json").read_bytes() == before
