"""Public benchmarks through EleutherAI's lm-evaluation-harness, on the policy as it stands in memory."""

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from alignlab.artifact import digest_of_folder
from alignlab.errors import ConfigError, suggestion
from alignlab.evaluation.base import Evaluation, EvaluationResult
from alignlab.metrics import Column, Estimate
from alignlab.policy import Policy, Progress, Sampling

EXTRA: Final = "lm-eval"
Samples = Sequence[Mapping[str, Any]]
"""The harness's record of each document: its number, the filter, and a value for each metric."""


class HarnessEvaluation(Evaluation):
    """Run tasks of the harness; it brings questions, few-shot examples, the way to answer and the metrics.

    Each task says itself how answers are sampled; the stage's `sampling` is not used. Intervals are over documents; a
    metric that is not a mean over them (a corpus BLEU), or is of a group of tasks, has none.

    Args:
        tasks: names of metrics by name of task: `{ifeval: [prompt_level_strict_acc]}`. After a comma stands the
            harness's filter, where a task has several: `{gsm8k: ["exact_match,strict-match"]}`.
        folder: of YAML files with tasks of your own, in place of the harness's; its tasks may run code of the folder.
        chat: ask by the chat template, as an instruct model is; false for a base model.
        shots: examples before each question; null leaves it to the task.
        limit: at most so many documents of each task, the first ones; null takes all.
        batch_size: documents at once: speed and memory only.

    Raises:
        ConfigError: the harness is not installed.

    Source: Gao et al., lm-evaluation-harness, https://github.com/EleutherAI/lm-evaluation-harness.
    """

    VERSION: ClassVar[str] = "1"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    def __init__(
        self,
        tasks: Mapping[str, Sequence[str]],
        folder: str | None = None,
        chat: bool = True,
        shots: int | None = None,
        limit: int | None = None,
        batch_size: int = 16,
    ) -> None:
        if importlib.util.find_spec("lm_eval") is None:
            raise ConfigError(
                f"HarnessEvaluation: the harness is not installed; install alignlab[{EXTRA}] (docs/lm-eval.md)"
            )
        if not tasks or not all(tasks.values()):
            raise ValueError("HarnessEvaluation: tasks must name the metrics of at least one task: {ifeval: [...]}")
        for name, value, least in (("limit", limit, 1), ("shots", shots, 0), ("batch_size", batch_size, 1)):
            if value is not None and value < least:
                raise ValueError(f"HarnessEvaluation: {name} must be >= {least}, got {value}")
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"HarnessEvaluation: there is no folder {folder}; it holds tasks as YAML files")
        self.tasks = {task: list(metrics) for task, metrics in tasks.items()}
        self.folder = folder
        self.chat, self.shots, self.limit, self.batch_size = chat, shots, limit, batch_size

    @property
    def columns(self) -> Sequence[Column]:
        """Those that `tasks` names."""
        return [
            Column(metric_of(task, metric), f"{metric} of the harness's task {task}", headline=True)
            for task, metrics in self.tasks.items()
            for metric in metrics
        ]

    def content_digest(self) -> str:
        """Digest of the tasks: those of the folder, or of the harness's release."""
        if self.folder is None:
            return f"lm_eval {importlib.metadata.version('lm_eval')}"
        return digest_of_folder(Path(self.folder))

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Run every task.

        Raises:
            ConfigError: there is no such task, or it has no such metric; the message lists those that there are.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=self.folder, include_defaults=self.folder is None)
        if unknown := [task for task in self.tasks if task not in manager.all_tasks]:
            has = f" in {self.folder} (there are {', '.join(manager.all_tasks) or 'none'})"
            listed = has if self.folder else suggestion(unknown[0], manager.all_tasks)
            raise ConfigError(f"HarnessEvaluation: there is no task {', '.join(unknown)}{listed}")
        model = HFLM(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=self.batch_size)
        found = simple_evaluate(
            model=model,
            tasks=list(self.tasks),
            num_fewshot=self.shots,
            limit=self.limit,
            apply_chat_template=self.chat,
            task_manager=manager,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
        assert found is not None, "the harness returns nothing in processes other than the first alone"
        documents: Mapping[str, Samples] = found["samples"]  # a group of tasks has none of its own
        metrics = {
            metric_of(task, metric): measured(task, metric, found["results"][task], documents.get(task, []))
            for task, names in self.tasks.items()
            for metric in names
        }
        return EvaluationResult(metrics, [row for task in self.tasks for row in rows_of(task, documents.get(task, []))])


def metric_of(task: str, metric: str) -> str:
    """Name of a metric here: `gsm8k_exact_match_strict-match` of `exact_match,strict-match`."""
    return f"{task}_{metric}".replace(",", "_").replace("/", "_")


def measured(task: str, metric: str, results: Mapping[str, Any], samples: Samples) -> float:
    """The harness's number, with an interval over documents where it is their mean.

    Args:
        task: its name.
        metric: "metric" or "metric,filter".
        results: the harness's numbers of the task, by "metric,filter".
        samples: its records of the task's documents.

    Raises:
        ConfigError: the task has no such metric.
    """
    known = [key for key in results if "," in key and "_stderr" not in key]
    matching = [key for key in known if metric in (key, key.partition(",")[0])]
    if len(matching) != 1:
        rule = "has several" if matching else "has no metric"
        raise ConfigError(f"HarnessEvaluation: {task} {rule} {metric}; write one of {', '.join(known)}")
    name, _, chosen = matching[0].partition(",")
    number = float(results[matching[0]])
    own = [s for s in samples if s.get("filter", "none") == chosen and isinstance(s.get(name), int | float)]
    estimate = Estimate.mean((str(s["doc_id"]), float(s[name])) for s in own)
    return estimate if estimate is not None and abs(float(estimate) - number) < 1e-9 else number


def rows_of(task: str, samples: Samples) -> list[dict[str, object]]:
    """Question, answer and truth of each document."""
    return [
        {
            "prompt": str(sample["arguments"][0][0]), "answer": _answer(sample), "kind": task, "finished": True,
            "truth": str(sample["target"]),
        }
        for sample in samples
    ]  # fmt: skip


def _answer(sample: Mapping[str, Any]) -> str:
    """The text that was generated; of several choices the likeliest, where their log-likelihoods were asked for."""
    found = sample["filtered_resps"]
    if not isinstance(found[0], tuple | list):
        return str(found[0])
    best = max(range(len(found)), key=lambda i: float(found[i][0]))
    return str(sample["arguments"][best][1])
