"""A few samples of a trained model for a reader, made when its stage ends.

They stand in the artifact's `samples.jsonl`, and are the table of the stage's W&B run. They are for looking at;
evaluations measure.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

from alignlab.data.chat import encode_document
from alignlab.data.records import Comparison, Document, Example, Prompt
from alignlab.policy.choice import Sampling
from alignlab.policy.policy import Policy
from alignlab.policy.prompts import leaves_room
from alignlab.policy.sampling import complete, generate
from alignlab.reward import RewardSource, ScoreModel

ROWS: Final = 8
SAMPLING: Final = Sampling(temperature=0.7, max_new_tokens=48)
OPENING_WORDS: Final = 6

T = TypeVar("T")
Rows: TypeAlias = list[dict[str, Any]]


def continued(policy: Policy, documents: Iterable[Document], seed: int) -> Rows:
    """The first documents, continued by the policy after their first words, and their true continuation."""
    texts = [d.text for d in _first(documents)]
    openings = [opening(policy, text, OPENING_WORDS) for text in texts]
    found = complete(policy, openings, SAMPLING, seed)
    return [
        {"prompt": start, "answer": sample.text, "wanted": text[len(start) :].strip()}
        for start, sample, text in zip(openings, found, texts, strict=True)
    ]


def answered(policy: Policy, examples: Iterable[Example], seed: int) -> Rows:
    """The policy's own answer to the first instructions, next to the given answer."""
    asked = _first(e for e in examples if leaves_room(policy, e.prompt))
    found = generate(policy, [e.prompt for e in asked], SAMPLING, seed)
    return [
        {"prompt": e.prompt.text, "answer": sample.text, "wanted": e.answer}
        for e, sample in zip(asked, found, strict=True)
    ]


def compared(policy: Policy, pairs: Iterable[Comparison], seed: int) -> Rows:
    """The policy's own answer to the first prompts, next to the two that were compared."""
    asked = _first(p for p in pairs if leaves_room(policy, p.prompt))
    found = generate(policy, [p.prompt for p in asked], SAMPLING, seed)
    return [
        {"prompt": p.prompt.text, "answer": sample.text, "chosen": p.chosen, "rejected": p.rejected}
        for p, sample in zip(asked, found, strict=True)
    ]


def compared_texts(pairs: Iterable[Comparison]) -> Rows:
    """The first pairs as they are."""
    return [{"prompt": p.prompt.text, "chosen": p.chosen, "rejected": p.rejected} for p in _first(pairs)]


def rewarded(
    policy: Policy, prompts: Iterable[Prompt], source: RewardSource | None, sampling: Sampling, seed: int
) -> Rows:
    """The policy's answer to the first prompts, and its reward, in reward units, where a source scores it."""
    asked = _first(p for p in prompts if leaves_room(policy, p))
    found = generate(policy, asked, sampling, seed)
    if source is None:
        return [{"prompt": sample.prompt.text, "answer": sample.text} for sample in found]
    rewards = source.score(asked, [sample.text for sample in found]).tolist()
    return [
        {"prompt": sample.prompt.text, "answer": sample.text, "reward": reward}
        for sample, reward in zip(found, rewards, strict=True)
    ]


def scored(policy: Policy, source: RewardSource, pairs: Iterable[Comparison]) -> Rows:
    """The first pairs, and the scores of both answers by a reward source, in reward units."""
    shown = _first(p for p in pairs if leaves_room(policy, p.prompt))
    prompts = [p.prompt for p in shown]
    better, worse = (source.score(prompts, [getattr(p, side) for p in shown]) for side in ("chosen", "rejected"))
    return [
        {
            "prompt": p.prompt.text,
            "chosen": p.chosen,
            "rejected": p.rejected,
            "chosen_score": high,
            "rejected_score": low,
        }
        for p, high, low in zip(shown, better.tolist(), worse.tolist(), strict=True)
    ]


def rated(policy: Policy, model: ScoreModel, examples: Iterable[Example]) -> Rows:
    """The first answers, their scores by each attribute of a model, and the ratings by the same that they have."""
    shown = _first(e for e in examples if leaves_room(policy, e.prompt))
    found = model.scores([e.prompt for e in shown], [e.answer for e in shown]).tolist()
    return [
        {
            "prompt": e.prompt.text,
            "answer": e.answer,
            **{f"score_{name}": score for name, score in zip(model.attributes, scores, strict=True)},
            **{f"rating_{name}": e.scores.get(name) for name in model.attributes},
        }
        for e, scores in zip(shown, found, strict=True)
    ]


def opening(policy: Policy, text: str, words: int) -> str:
    """The text up to the end of its `words`-th word, line breaks kept; less where that would fill half of the context.

    (Not every language separates its words by blanks.)
    """
    end = 0
    for word in text.split()[:words]:
        end = text.index(word, end) + len(word)
    while end > 1 and 2 * len(encode_document(policy.tokenizer, text[:end])) > policy.context:
        end //= 2
    return text[:end]


def _first(items: Iterable[T]) -> list[T]:
    return list(islice(items, ROWS))
