"""Time alignlab and TRL on the same work, in turn, and write a row per task to results.csv.

    python run.py --trl PYTHON_OF_TRL --ppo FOLDER_OF_TRL_1.12 --pairs hh.jsonl.gz --instructions alpaca.json

Each measurement is a process of its own. The sides alternate, `--rounds` times; a cell is the median over the rounds,
and the ratio is the median of the ratios of neighbours in time, so that a machine that slows down does not matter.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from work import (
    BOS,
    CONTEXT,
    EOS,
    FEEDFORWARD,
    HEADS,
    LAYERS,
    PAD,
    ROWS,
    TASKS,
    VOCABULARY,
    WIDTH,
    Rows,
    Task,
    environment,
    fixed_rows,
)

from alignlab.data.files import Files
from alignlab.data.records import Prompt

HERE = Path(__file__).resolve().parent
COLUMNS = ("task", "side", "ms", "cpu_ms", "tokens_per_second", "peak_mb", "steps", "ratio_cpu", "ratio_ms")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", help="; all by default, uneven ones where their file is given")
    parser.add_argument("--trl", help="python of an environment with TRL; without it alignlab is timed alone")
    parser.add_argument("--ppo", default="", help="folder with an unpacked wheel of TRL 1.12")
    parser.add_argument("--pairs", type=Path, help="preference pairs whose lengths are taken (HH)")
    parser.add_argument("--instructions", type=Path, help="answered instructions whose lengths are taken")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    given = parser.parse_args()
    files = {"pairs": given.pairs, "instructions": given.instructions}
    names = given.tasks or [name for name, task in TASKS.items() if not task.file or files[task.file]]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_models(work)
        found = []
        for name in names:
            make_rows(TASKS[name], files).write(work / f"{name}.json")
            found += measured(name, work, given)
            table(found, given.out)


def measured(name: str, work: Path, given: argparse.Namespace) -> list[dict[str, object]]:
    """A row per side."""
    sides = {"alignlab": [sys.executable, str(HERE / "side_alignlab.py")]}
    if given.trl:
        ppo = ["--ppo", given.ppo] if TASKS[name].kind == "ppo" else []
        sides["trl"] = [given.trl, str(HERE / "side_trl.py"), *ppo]
    if TASKS[name].kind == "sft":
        sides["bare loop"] = [sys.executable, str(HERE / "side_bare.py")]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(given.rounds):
        for side, command in sides.items():
            more = [name, "--work", str(work), "--seconds", str(given.seconds), "--threads", str(given.threads)]
            found[side].append(timed([*command, *more], work, given.threads))
    rows = []
    for side, results in found.items():
        row: dict[str, object] = {"task": name, "side": side}
        row |= {key: statistics.median(r[key] for r in results) for key in COLUMNS[2:7]}
        if side != "alignlab":
            row["ratio_cpu"] = round(ratio(found, side, "cpu_ms"), 2)
            row["ratio_ms"] = round(ratio(found, side, "ms"), 2)
        rows.append(row)
        print(row, flush=True)
    return rows


def ratio(found: dict[str, list[dict[str, float]]], side: str, key: str) -> float:
    """Median over the rounds of a side over alignlab."""
    both = zip(found[side], found["alignlab"], strict=True)
    return statistics.median(theirs[key] / ours[key] for theirs, ours in both)


def timed(command: Sequence[str], work: Path, threads: int) -> dict[str, float]:
    """The JSON line of one process."""
    variables = {**environment(threads), "HF_HOME": str(work / "hf"), "HF_DATASETS_CACHE": str(work / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False, cwd=HERE)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    line: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return line


def table(rows: Iterable[dict[str, object]], file: Path) -> None:
    """Write results.csv."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# ---- models and rows ---------------------------------------------------------------------------------------------
def make_models(work: Path) -> None:
    """A random Llama with a tokenizer of one word per token, as `policy`, and with a head that scores, as `reward`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from alignlab.policy import Policy

    words = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(EOS + 1, VOCABULARY))]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[-1]))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }}"
        "{% if message['role'] == 'assistant' %} {{ eos_token }}{% else %} {% endif %}{% endfor %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        intermediate_size=FEEDFORWARD,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    policy = Policy(LlamaForCausalLM(config), tokenizer)
    policy.save(work / "policy")
    policy.add_score_head(0)
    policy.save(work / "reward")


def make_rows(task: Task, files: dict[str, Path | None]) -> Rows:
    """Rows of fixed lengths, or as long as the records of a real file."""
    if not task.file:
        return fixed_rows(task)
    file = files[task.file]
    if file is None:
        raise SystemExit(f"this task takes its lengths from a file: give --{task.file} FILE")
    return real_rows(task, file)


def real_rows(task: Task, file: Path) -> Rows:
    """Records of a file, in a vocabulary of the model's size that is learnt on them; longer ones than fit are left out.

    Prompts and answers are the file's own, with a marker of the turn, so that lengths and shared prompts are real.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    source = Files(instructions=str(file)) if task.kind == "sft" else Files(preferences=str(file))
    records = texts(source, task)
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    learnt.train_from_iterator((text for prompt, answers in records for text in (prompt, *answers)), trainer)
    found = Rows([], [])
    for prompt, answers in records:
        asked = [BOS, *learnt.encode(prompt).ids]
        answered = [[*learnt.encode(a).ids, EOS] for a in answers]
        if len(asked) + max(map(len, answered)) <= CONTEXT and len(found.prompts) < ROWS:
            found.prompts.append(asked)  # type: ignore[attr-defined]
            found.answers.append(answered)  # type: ignore[attr-defined]
    return found


def texts(source: "Files", task: Task) -> list[tuple[str, list[str]]]:
    """Prompt and answers of each record, with a marker before each turn."""

    def asked(prompt: Prompt) -> str:
        return "".join(f"\n\n{m.role}: {m.content}" for m in prompt.messages) + "\n\nassistant:"

    if task.kind == "sft":
        return [(asked(e.prompt), [f" {e.answer}"]) for e in source.instructions("train")]
    return [(asked(c.prompt), [f" {c.chosen}", f" {c.rejected}"]) for c in source.comparisons("train")]


if __name__ == "__main__":
    main()
