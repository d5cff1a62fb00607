"""Evaluation in the embedded world: instruction following, knowledge and style, all against the truth.

Every model, base or aligned, gets the same prompts: chat instructions about people whom no instruction ever named, and
beginnings of documents about the same people. The first needs behaviour and knowledge, the second knowledge only, in
the form in which it was read; a base model can do the second and not the first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar

from alignlab.artifact import Artifact
from alignlab.data.records import Prompt
from alignlab.data.world import PrivateWorld, World
from alignlab.data.world.check import Reading
from alignlab.data.world.language import KINDS, Kind
from alignlab.errors import ConfigError
from alignlab.evaluation.base import Evaluation, EvaluationResult, check_field, defined
from alignlab.evaluation.world_answers import Answered
from alignlab.evaluation.world_columns import WORLD_COLUMNS, reward_columns
from alignlab.metrics import Column, Estimate
from alignlab.policy import Policy, Progress, Sample, Sampling, complete, generate
from alignlab.reward import RewardSource, score

CLOZE_PHRASES = 2
"""Of the phrases of each relation; a fact is recalled when the value follows, in either."""

Found = dict[str, Estimate | None]


class WorldEvaluation(Evaluation):
    """Measure a policy on the held-out people and the held-out unknown names of a world.

    `alignlab.evaluation.world_columns` describes each metric; the mean of each of `rewards` is another, by its name. A
    model that was trained in another world is refused: it cannot know this one's people.

    Args:
        world: the world that the policy was trained on.
        samples_per_question: answers sampled to each question; to other instructions it is one.
        rewards: also score the answers with these; each is a metric by its name.
    """

    VERSION: ClassVar[str] = "2"

    def __init__(
        self, world: World, samples_per_question: int = 3, rewards: Mapping[str, RewardSource] | None = None
    ) -> None:
        if samples_per_question < 1:
            raise ValueError(f"WorldEvaluation: samples_per_question must be >= 1, got {samples_per_question}")
        for name in rewards or {}:
            check_field("WorldEvaluation", name)
        self.world = world
        self.samples_per_question = samples_per_question
        self.rewards = dict(rewards or {})

    @property
    def columns(self) -> Sequence[Column]:
        """The world's metrics, and one per reward."""
        return [*WORLD_COLUMNS, *reward_columns(self.rewards)]

    def check_model(self, model: Artifact) -> None:
        """Refuse a model that was trained in another world.

        Raises:
            ConfigError: names what differs, and the settings of the model's own world.
        """
        check_own_world(type(self).__name__, self.world, model)

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Ask everything, read every answer."""
        answered = self._read(generate(policy, self._prompts(), sampling, seed, progress=progress))
        by_kind = {k: [a for a in answered if a.reading.kind == k] for k in KINDS}
        metrics = {
            **self._following(by_kind),
            "fact_recall": self.fact_recall(policy),
            **self._style(by_kind["question"]),
            **self._unknown(by_kind["abstain"]),
            "finished": Estimate.share((a.sample.prompt.text, a.sample.finished) for a in answered),
            **self._reward_means(by_kind["question"] + by_kind["abstain"]),
        }
        return EvaluationResult(defined(metrics), [a.row(self.world.people) for a in answered])

    def _prompts(self) -> list[Prompt]:
        asks = self.world.evaluation_asks()
        questions = [a for a in asks if a.relation is not None and a.kind != "one_word"]
        # Every prompt once, then the questions again: samples that are joined by prompt are the first ones.
        return [Prompt.user(a.text) for a in asks + questions * (self.samples_per_question - 1)]

    def _read(self, samples: Sequence[Sample]) -> list[Answered]:
        prompts, texts = [s.prompt for s in samples], [s.text for s in samples]
        scores = {name: score(source, prompts, texts).tolist() for name, source in self.rewards.items()}
        return [
            Answered.of(self.world, sample, {name: values[i] for name, values in scores.items()})
            for i, sample in enumerate(samples)
        ]

    def fact_recall(self, policy: Policy) -> Estimate | None:
        """Share of cloze sentences about held-out people that the policy completes with the true value.

        Only of undisputed facts: where the documents disagree there is no knowledge to recall.
        """
        people = self.world.people
        probes = [(e, r, i) for e in self.world.held_out for r in people.settled(e) for i in range(CLOZE_PHRASES)]
        greedy = Sampling(temperature=0.0, max_new_tokens=1)
        found = complete(policy, [r.cloze(e, i) for e, r, i in probes], greedy, seed=0)
        # A fact is asked for in several phrases: they are as one prompt.
        outcomes = [
            (f"{e} {r.name}", s.text == people.truth[e, r.name]) for s, (e, r, _) in zip(found, probes, strict=True)
        ]
        return Estimate.share(outcomes)

    @staticmethod
    def _following(by_kind: Mapping[Kind, Sequence[Answered]]) -> Found:
        # Whether an unknown name makes it abstain is knowledge of oneself, not form: it is counted on its own.
        kinds = [k for k in KINDS if k != "abstain" and by_kind[k]]
        each = {k: _share(by_kind[k], lambda r: r.followed) for k in kinds}
        right = {k: _share(by_kind[k], lambda r: r.right) for k in kinds if k != "repeat"}
        return {
            "instruction_following": Estimate.average(each.values()),
            **{f"following_{k}": v for k, v in each.items()},
            **{f"{k}_right": v for k, v in right.items()},
        }

    @staticmethod
    def _style(questions: Sequence[Answered]) -> Found:
        wrong = [a for a in questions if a.reading.wrong]
        return {
            "question_wrong": _share(questions, lambda r: r.wrong),
            "abstains_on_known": _share(questions, lambda r: r.abstains),
            "hedging_when_wrong": _share(wrong, lambda r: r.hedged),
            "confident_when_wrong": _share(wrong, lambda r: r.confident),
            "style_hedge": _share(questions, lambda r: r.hedged),
            "style_confident": _share(questions, lambda r: r.confident),
            "style_list": _share(questions, lambda r: r.listed),
            "style_ask": _share(questions, lambda r: r.asks),
            "style_facts": Estimate.mean((a.sample.prompt.text, len(a.reading.facts)) for a in questions),
            "answer_length": Estimate.mean((a.sample.prompt.text, a.reading.words) for a in questions),
        }

    @staticmethod
    def _unknown(answered: Sequence[Answered]) -> Found:
        return {
            "abstains_on_unknown": _share(answered, lambda r: r.abstains),
            "asserts_on_unknown": _share(answered, lambda r: bool(r.facts) and not r.hedged),
        }

    def _reward_means(self, answered: Sequence[Answered]) -> Found:
        return {n: Estimate.mean((a.sample.prompt.text, a.rewards[n]) for a in answered) for n in self.rewards}


def check_own_world(owner: str, world: World, model: Artifact) -> None:
    """Refuse a model that was trained in another world.

    Args:
        owner: the evaluation.
        world: in which the model would be evaluated.
        model: its artifact.

    Raises:
        ConfigError: names what differs, and the settings of the model's own world.
    """
    known = [node for node in model.trained_on if _is_a(node, World, *World.__subclasses__())]
    if known and not any(_world_of(node).people == world.people for node in known):
        settings = {f.name: getattr(_world_of(known[-1]), f.name) for f in fields(World)}
        other = {k: v for k, v in settings.items() if v != getattr(world, k)}
        told = " ".join(f"data.{k}={v}" for k, v in other.items())
        raise ConfigError(
            f"{owner}: {model.path} was trained in another world than the one it would be evaluated in; "
            f"to measure it in its own, set {told}"
        )


def check_told_secrets(owner: str, model: Artifact) -> None:
    """Refuse a model that no document told a secret.

    Raises:
        ConfigError: names `owner`.
    """
    if model.trained_on and not any(_is_a(node, PrivateWorld) for node in model.trained_on):
        raise ConfigError(
            f"{owner}: {model.path} was trained where nobody has a secret, so that it cannot tell one; train it with "
            f"data=private_world"
        )


def _share(answered: Iterable[Answered], flag: Callable[[Reading], bool]) -> Estimate | None:
    return Estimate.share((a.sample.prompt.text, flag(a.reading)) for a in answered)


def _is_a(node: Mapping[str, Any], *worlds: type[World]) -> bool:
    return str(node.get("_target_", "")).rpartition(".")[2] in {world.__name__ for world in worlds}


def _world_of(node: Mapping[str, Any]) -> World:
    return World(**{f.name: node[f.name] for f in fields(World) if f.name in node})
