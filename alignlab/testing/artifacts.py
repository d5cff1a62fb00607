"""A tiny policy, and artifacts made in milliseconds, for tests of stages, rewards and objectives."""

from pathlib import Path

import torch
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.data import preferences, rankings
from alignlab.data.records import Comparison, Prompt, Ranking
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Llama, Policy

WORDS = (
    "what",
    "does",
    "ana",
    "bo",
    "cy",
    "like",
    "?",
    "tea",
    "rain",
    "bread",
    "i",
    "think",
    "not",
    "sure",
    "and",
    "or",
    "yes",
)
"""The words of the tiny tokenizer; with its special tokens they are 24."""


def tiny_policy(seed: int = 0, scalar_head: bool = False) -> Policy:
    """A one-block Llama of random weights over two dozen words; logits of a few units, so that some words are likelier.

    Args:
        scalar_head: also give it a head for `value` and `score`.
    """
    tokenizer = TrainTokenizer(kind="word", vocab_size=64).train([" ".join(WORDS)] * 2)
    shape = Llama(layers=1, width=16, heads=2, feedforward=32, context=32, tie_embeddings=False)
    policy = Policy(shape.build(tokenizer, seed), tokenizer)
    with torch.no_grad():
        head_of(policy).mul_(30.0)
    if scalar_head:
        policy.add_score_head(seed)
    return policy


def head_of(policy: Policy) -> Tensor:
    """The `(V, d)` weight that makes logits."""
    weight: Tensor = policy.model.get_output_embeddings().weight
    return weight


def tiny_policy_artifact(folder: Path, seed: int = 0, scalar_head: bool = False) -> Artifact:
    """The tiny policy, saved into a new folder; a reward model when it has a scalar head."""
    folder.mkdir(parents=True)
    tiny_policy(seed, scalar_head).save(folder)
    return Artifact.open(folder)


def tiny_preferences_artifact(folder: Path, pairs: int = 12, notes: bool = False) -> Artifact:
    """Preferences between answers of unequal length, in the words of the tiny tokenizer; every third is held out.

    Args:
        folder: new.
        pairs: how many.
        notes: give each its own `margin`, `agreement`, `probability` and `tie`, for objectives that read them.
    """
    folder.mkdir(parents=True)
    names, things = WORDS[2:5], WORDS[7:10]
    rows = []
    for n in range(pairs):
        prompt = Prompt.user(f"what does {names[(n + n // 3) % 3]} like ?")  # several prompts in either split
        good, bad = things[n // 3 % 3], f"{things[(n // 3 + 1) % 3]} and {things[n % 3]} i think"
        known = {"margin": 0.1 * n, "agreement": 1 / (1 + n), "probability": 1 - 1 / (2 + n)} if notes else {}
        known |= {"tie": float(n % 4 == 0)} if notes else {}
        pair = Comparison(prompt, good, bad, notes=known)
        rows.append(preferences.row(pair, "validation" if n % 3 == 2 else "train"))
    preferences.write(folder, rows)
    return Artifact.open(folder)


def tiny_rankings_artifact(folder: Path, count: int = 12, longest: int = 4) -> Artifact:
    """Rankings of two and more answers of unequal length, in the words of the tiny tokenizer; every third is held out.

    Args:
        folder: new.
        count: of rankings.
        longest: answers of the longest rankings; with 2 all are pairs.
    """
    folder.mkdir(parents=True)
    names, things = WORDS[2:5], WORDS[7:10]
    rows = []
    for n in range(count):
        prompt = Prompt.user(f"what does {names[(n + n // 3) % 3]} like ?")
        first, second, third = (things[(n // 3 + i) % 3] for i in range(3))
        answers = (first, f"{second} and {things[n % 3]} i think", f"not {third}", "i think yes or not sure")
        length = 2 + n // 2 % (longest - 1)
        rows.append(rankings.row(Ranking(prompt, answers[:length]), "validation" if n % 3 == 2 else "train"))
    rankings.write(folder, rows)
    return Artifact.open(folder)
