"""Folders that hold something else than a model, or broken files: one message that names the folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import SIZE, edit, llama, save

from alignlab.artifact import Artifact
from alignlab.errors import StoreError
from alignlab.policy import Policy


def refused(folder: Path, match: str) -> str:
    """The message with which a folder is refused: one line that names it."""
    with pytest.raises(StoreError, match=match) as error:
        Policy.load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


# ---- what is in the folder instead -----------------------------------------------------------------------------------
def test_an_adapter_is_named_beside_a_model_and_without_one(tmp_path: Path) -> None:
    (llama(tmp_path) / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc", "peft_type": "LORA"}')
    assert refused(tmp_path, r"an adapter next to a model \(adapter_config\.json\).*merge_and_unload")
    (tmp_path / "config.json").unlink()
    assert refused(tmp_path, r"an adapter without its base model.*merge_and_unload")
    with pytest.raises(StoreError, match=r"an adapter without its base model.*merge_and_unload"):
        Artifact.open(tmp_path)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_quantised_weights_are_named(method: str, tmp_path: Path) -> None:
    edit(llama(tmp_path) / "config.json", lambda c: c.update(quantization_config={"quant_method": method}))
    assert refused(tmp_path, rf"quantised weights \({method}\), which cannot be trained.*dequantize")


def sharded(folder: Path) -> Path:
    from transformers import LlamaConfig

    return save(folder, LlamaConfig(**SIZE), max_shard_size="16KB")


def test_shards_are_read_from_their_own_folder_only(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    assert Policy.load(folder)
    index = folder / "model.safetensors.index.json"
    name = sorted(set(json.loads(index.read_text())["weight_map"].values()))[0]
    for outside in (f"../other/{name}", str(tmp_path / "other" / name), f"sub/{name}", "..", f"..\\{name}"):
        target = folder / outside
        target.parent.mkdir(exist_ok=True, parents=True)
        if not target.exists():
            target.write_bytes((folder / name).read_bytes())

        def point(content: dict[str, Any], to: str = outside) -> None:
            first = next(iter(content["weight_map"]))
            content["weight_map"][first] = to

        before = index.read_text()
        edit(index, point)
        assert refused(folder, "which is not a file of its own folder")
        index.write_text(before)
    (folder / name).unlink()
    assert refused(folder, "which is missing; copy the folder again")
    index.write_text("{}")
    assert refused(folder, "has no weight_map")


def test_pickled_and_damaged_weights_are_not_read(tmp_path: Path) -> None:
    weights = llama(tmp_path) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-7])
    assert refused(tmp_path, r"model\.safetensors is damaged")
    weights.write_bytes(b"\xff" * 64)
    assert refused(tmp_path, r"model\.safetensors is damaged")
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert refused(tmp_path, r"model\.safetensors is a Git LFS pointer .*git lfs pull")
    weights.unlink()
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert refused(tmp_path, "holds no safetensors weights.*pickled weights are not read")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply|cannot be read"),
        ('{"a": ' * 600 + "1" + "}" * 600, "."),
        ("[]", "must hold a JSON object, found list"),
        ('{"model_type": "no_such_model"}', "config.json cannot be loaded.*no_such_model"),
        ('{"model_type": "llama", "hidden_size": "many"}', "cannot be loaded"),
        ('{"model_type": "llama", "num_attention_heads": 0}', "cannot be loaded"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_malformed_configuration_is_one_message(content: str | bytes, why: str, tmp_path: Path) -> None:
    (llama(tmp_path) / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    assert refused(tmp_path, why)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{", '{"architectures": 1}', '{"architectures": [1]}', "\0"])
@pytest.mark.parametrize("file", ["config.json", "manifest.json"])
def test_an_artifact_with_a_malformed_file_is_one_message(file: str, content: str, tmp_path: Path) -> None:
    (llama(tmp_path) / file).write_text(content)
    with pytest.raises(StoreError, match=f"{file} (cannot be read|is not an artifact's manifest)"):
        Artifact.open(tmp_path)


@pytest.mark.parametrize("file", ["generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_any_other_malformed_file_is_one_message(file: str, content: str, tmp_path: Path) -> None:
    (llama(tmp_path) / file).write_text(content)
    assert refused(tmp_path, r"(model|tokenizer) cannot be loaded|cannot be read|must hold a JSON object")


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("value", [" ", [2, " "], -1, 1.5, True])
def test_a_stop_token_that_is_no_id_is_named(file: str, value: object, tmp_path: Path) -> None:
    edit(llama(tmp_path) / file, lambda c: c.update(eos_token_id=value))
    assert refused(tmp_path, rf"{file}: eos_token_id holds .*, which is not a token id; correct it")
