"""TRL's side: one task by its trainers; prints one JSON line. Runs in an environment of its own.

    PYTHON_OF_TRL side_trl.py TASK --work FOLDER --seconds 20 [--ppo FOLDER]

TRL 1.13 dropped its PPO: `--ppo` names a folder with an unpacked wheel of TRL 1.12, which then does the `ppo` tasks.
Rows are given as token ids, so that no trainer tokenises anything; caches and outputs stay in the work folder.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from work import TASKS, Clock, Done, Rows, Task, arguments, until_done


def main() -> None:
    given = arguments(ppo="")
    torch.set_num_threads(given.threads)
    task = TASKS[given.task]
    if task.kind == "ppo" and given.ppo:
        sys.path.insert(0, given.ppo)
    rows, clock = Rows.read(given.work / f"{given.task}.json"), Clock(given.seconds)
    trainer = trainer_of(task, rows, given.work, ticking(clock))
    with until_done():
        trainer.train()
    print(json.dumps(clock.result(task.batch * rows.tokens)))


def ticking(clock: Clock) -> Any:
    """A callback that ticks at the beginning of each step; PPO's trainer calls back at the end of a step alone."""
    from transformers import TrainerCallback

    class Ticking(TrainerCallback):
        begins = False

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.begins = True
            self._tick()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if not self.begins:
                self._tick()
            return control

        def _tick(self) -> None:
            if clock.tick():
                raise Done

    return Ticking()


def trainer_of(task: Task, rows: Rows, work: Path, callback: Any) -> Any:
    """The trainer of a task, at its defaults but for precision, logging and saving."""
    import trl
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bars()
    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(work / "policy")
    policy = AutoModelForCausalLM.from_pretrained(work / "policy", dtype=torch.float32)
    common = {
        "output_dir": str(work / "trl"),
        "per_device_train_batch_size": task.batch,
        "max_steps": 10**5,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "learning_rate": 1e-4,
        "bf16": False,
        "gradient_checkpointing": False,
        "seed": 0,
    }
    also = {"processing_class": tokenizer, "callbacks": [callback]}
    if task.kind == "sft":
        data = Dataset.from_list(
            [
                {"input_ids": [*p, *a[0]], "completion_mask": [0] * len(p) + [1] * len(a[0])}
                for p, a in zip(rows.prompts, rows.answers, strict=True)
            ]
        )
        arguments = trl.SFTConfig(max_length=None, completion_only_loss=True, **common)
        return trl.SFTTrainer(policy, arguments, train_dataset=data, **also)
    if task.kind == "dpo":
        once = task.reference == "once"
        arguments = trl.DPOConfig(max_length=None, beta=0.1, precompute_ref_log_probs=once, **common)
        return tokenised_dpo(trl)(str(work / "policy"), args=arguments, train_dataset=pairs(rows), **also)
    if task.kind == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(work / "reward", dtype=torch.float32)
        arguments = trl.RewardConfig(max_length=None, **common)
        whole = [
            {"chosen_ids": [*p, *a[0]], "rejected_ids": [*p, *a[1]]}
            for p, a in zip(rows.prompts, rows.answers, strict=True)
        ]
        return trl.RewardTrainer(model, args=arguments, train_dataset=Dataset.from_list(whole), **also)
    if task.kind == "grpo":
        data = Dataset.from_dict({"prompt": [tokenizer.decode(p) for p in rows.prompts]})
        length = {"max_completion_length": task.answer, "generation_kwargs": {"min_new_tokens": task.answer}}
        arguments = trl.GRPOConfig(beta=0.05, num_generations=task.group, temperature=1.0, **length, **common)
        return trl.GRPOTrainer(str(work / "policy"), reward_funcs=distinct, args=arguments, train_dataset=data, **also)
    return ppo(task, rows, work, policy, tokenizer, callback)


def pairs(rows: Rows) -> Any:
    """Pairs as the DPO trainer's collator takes them."""
    from datasets import Dataset

    both = zip(rows.prompts, rows.answers, strict=True)
    return Dataset.from_list([{"prompt_ids": p, "chosen_ids": a[0], "rejected_ids": a[1]} for p, a in both])


def tokenised_dpo(trl: Any) -> Any:
    """The DPO trainer, for data that are token ids already."""

    class Trainer(trl.DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return Trainer


def distinct(completions: list[str], **_: Any) -> list[float]:
    """Number of distinct characters: a reward that costs nothing."""
    return [float(len(set(text))) for text in completions]


def ppo(task: Task, rows: Rows, work: Path, policy: Any, tokenizer: Any, callback: Any) -> Any:
    """TRL 1.12's PPO, of answers of exactly the task's length."""
    import trl.experimental.ppo.ppo_trainer as module
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    original = module.GenerationConfig
    module.GenerationConfig = lambda **k: original(**{**k, "min_new_tokens": task.answer})
    scores: Mapping[str, Any] = {
        name: AutoModelForSequenceClassification.from_pretrained(work / "reward", dtype=torch.float32)
        for name in ("reward_model", "value_model")
    }
    arguments = PPOConfig(
        output_dir=str(work / "trl"),
        per_device_train_batch_size=task.batch,
        gradient_accumulation_steps=1,
        total_episodes=task.batch * 4000,
        num_mini_batches=1,
        num_ppo_epochs=task.epochs,
        response_length=task.answer,
        local_rollout_forward_batch_size=task.batch,
        num_sample_generations=0,
        temperature=1.0,
        kl_coef=0.05,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        learning_rate=1e-4,
        bf16=False,
        gradient_checkpointing=False,
        seed=0,
        logging_strategy="no",
        stop_token="eos",
    )
    tokenizer.padding_side = "left"
    data = Dataset.from_dict({"input_ids": rows.prompts})
    trainer = PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=policy,
        ref_model=AutoModelForCausalLM.from_pretrained(work / "policy", dtype=torch.float32),
        train_dataset=data,
        eval_dataset=data.select(range(task.batch)),
        callbacks=[callback],
        **scores,
    )
    trainer.log = lambda *a, **k: None
    return trainer


if __name__ == "__main__":
    main()
