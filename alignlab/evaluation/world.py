"""What the embedded world can tell of a policy: whether it does as it is told, what it knows, and how it speaks.

Every model, base or aligned, is asked the same: chat instructions about people whom no instruction ever named, and
documents to go on with about the same people. The first needs behaviour and knowledge, the second knowledge only, in
the form in which it was read; a base model can do the second and not the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from alignlab.data.records import Prompt
from alignlab.data.world import World
from alignlab.data.world.check import Reading
from alignlab.data.world.language import KINDS, Kind
from alignlab.evaluation.base import Evaluation, EvaluationResult, defined, share
from alignlab.policy import Policy, Progress, Sample, Sampling, complete, generate
from alignlab.reward import RewardSource

CLOZE_PHRASES = 2
"""Of the phrases of each relation; a fact is recalled when the value follows, in either."""
COLUMNS = ("followed", "right", "wrong", "abstains", "confident", "hedged", "listed", "asks", "false_facts", "words")


@dataclass(frozen=True)
class Answered:
    """A sampled answer and what it says."""

    sample: Sample
    reading: Reading
    rewards: Mapping[str, float]


class WorldEvaluation(Evaluation):
    """Measures a policy on the held-out people and the held-out unknown names of a world.

    Metrics, all shares from 0 to 1 unless said otherwise:

    - `instruction_following`: mean over the kinds question, one word, list and repeat of `following_<kind>`: the
      answer stopped by itself and has the form that was asked for, true or not;
    - `fact_recall`: the likeliest next word after the beginning of a document's sentence is the true one, where
      the documents agree;
    - `question_right`, `one_word_right`, `list_right`: what was asked for is true; `question_wrong`: well-formed and
      not true; `abstains_on_known`: neither;
    - `hedging` and `style_hedge` (the same), `style_confident`, `style_list`, `style_ask`: of the answers to
      questions; `style_facts`: values that they mention, a mean;
    - `hedging_when_wrong`, `confident_when_wrong`: of the wrong answers to questions; left out where there is none;
    - `abstains_on_unknown`; `confident_on_unknown`: states a fact about somebody of whom nothing is known, without
      hedging;
    - `answer_length`: words of an answer to a question, a mean; `finished`: of all answers;
    - the mean of each of `rewards`, over the answers to questions, unknown names included, in reward units.

    Args:
        world: the world that the policy was trained on.
        samples_per_question: answers sampled to each question; to other instructions it is one.
        rewards: also score the answers with these; each is a metric by its name.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(
        self, world: World, samples_per_question: int = 3, rewards: Mapping[str, RewardSource] | None = None
    ) -> None:
        if samples_per_question < 1:
            raise ValueError(f"WorldEvaluation: samples_per_question must be >= 1, got {samples_per_question}")
        self.world = world
        self.samples_per_question = samples_per_question
        self.rewards = dict(rewards or {})

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Ask everything, read every answer."""
        prompts = self._prompts()
        answered = self._read(generate(policy, prompts, sampling, seed, progress=progress))
        by_kind = {k: [a for a in answered if a.reading.kind == k] for k in KINDS}
        metrics = {
            **self._following(by_kind),
            "fact_recall": self.fact_recall(policy),
            **self._style([a.reading for a in by_kind["question"]]),
            **self._unknown([a.reading for a in by_kind["abstain"]]),
            "finished": share(a.sample.finished for a in answered),
            **self._reward_means(by_kind["question"] + by_kind["abstain"]),
        }
        return EvaluationResult(defined(metrics), [_row(a) for a in answered])

    def _prompts(self) -> list[Prompt]:
        asks = self.world.evaluation_asks()
        questions = [a for a in asks if a.relation is not None and a.kind != "one_word"]
        # Every prompt once, then the questions again: whoever joins samples by prompt meets the first ones.
        return [Prompt.user(a.text) for a in asks + questions * (self.samples_per_question - 1)]

    def _read(self, samples: Sequence[Sample]) -> list[Answered]:
        prompts, texts = [s.prompt for s in samples], [s.text for s in samples]
        scores = {name: source.score(prompts, texts).tolist() for name, source in self.rewards.items()}
        readings = [_of_whole_answer(self.world.read(s.prompt, s.text), s.finished) for s in samples]
        rewards = [{name: values[i] for name, values in scores.items()} for i in range(len(samples))]
        return [Answered(*parts) for parts in zip(samples, readings, rewards, strict=True)]

    def fact_recall(self, policy: Policy) -> float | None:
        """Share of cloze sentences about held-out people that the policy completes with the true value.

        Only of undisputed facts: where the documents disagree there is no knowledge to recall.
        """
        people = self.world.people
        probes = [(e, r, i) for e in people.held_out for r in people.settled(e) for i in range(CLOZE_PHRASES)]
        greedy = Sampling(temperature=0.0, max_new_tokens=1)
        found = complete(policy, [r.cloze(e, i) for e, r, i in probes], greedy, seed=0)
        return share(s.text == people.truth[e, r.name] for s, (e, r, _) in zip(found, probes, strict=True))

    @staticmethod
    def _following(by_kind: Mapping[Kind, Sequence[Answered]]) -> dict[str, float | None]:
        # Whether an unknown name makes it abstain is knowledge of oneself, not form: it is counted on its own.
        kinds = [k for k in KINDS if k != "abstain" and by_kind[k]]
        each = {k: share(a.reading.followed for a in by_kind[k]) for k in kinds}
        right = {k: share(a.reading.right for a in by_kind[k]) for k in kinds if k != "repeat"}
        return {
            "instruction_following": share(v for v in each.values() if v is not None),
            **{f"following_{k}": v for k, v in each.items()},
            **{f"{k}_right": v for k, v in right.items()},
        }

    @staticmethod
    def _style(readings: Sequence[Reading]) -> dict[str, float | None]:
        wrong = [r for r in readings if r.wrong]
        return {
            "question_wrong": share(r.wrong for r in readings),
            "abstains_on_known": share(r.abstains for r in readings),
            "hedging": share(r.hedged for r in readings),
            "hedging_when_wrong": share(r.hedged for r in wrong),
            "confident_when_wrong": share(r.confident for r in wrong),
            "style_hedge": share(r.hedged for r in readings),
            "style_confident": share(r.confident for r in readings),
            "style_list": share(r.listed for r in readings),
            "style_ask": share(r.asks for r in readings),
            "style_facts": share(len(r.facts) for r in readings),
            "answer_length": share(r.words for r in readings),
        }

    @staticmethod
    def _unknown(readings: Sequence[Reading]) -> dict[str, float | None]:
        return {
            "abstains_on_unknown": share(r.abstains for r in readings),
            "confident_on_unknown": share(bool(r.facts) and not r.hedged for r in readings),
        }

    def _reward_means(self, answered: Sequence[Answered]) -> dict[str, float | None]:
        return {name: share(a.rewards[name] for a in answered) for name in self.rewards}


def _of_whole_answer(reading: Reading, finished: bool) -> Reading:
    """An answer that did not stop by itself follows nothing, however it looks up to where it was cut."""
    return reading if finished else replace(reading, followed=False, right=False, wrong=False, abstains=False)


def _row(answered: Answered) -> dict[str, object]:
    reading = asdict(answered.reading)
    sample = answered.sample
    first = {"prompt": sample.prompt.text, "answer": sample.text, "kind": reading["kind"], "finished": sample.finished}
    return {**first, **{k: reading[k] for k in COLUMNS}, **answered.rewards}
