"""Every reward source of the plugin goes through the conformance kit."""

from alignlab_raters import Rater, TrueTaste

from alignlab.data.records import Prompt
from alignlab.data.world import World
from alignlab.testing import Check, conforms_reward_source

WORLD = World(training_documents=1, training_instructions=1)
PERSON = WORLD.people.taught[0]
ASKED = [Prompt.user(f"what does {PERSON} do ?"), Prompt.user(f"list two facts about {PERSON}")] * 3
ANSWERS = [
    f"{PERSON} works as a baker .",
    "- job baker - city rome",
    "",
    "certainly ! - job baker",
    "?!",
    "unknown .",
]


def of_text() -> Rater:
    return Rater("plain", {"polite": 0.5, "list": 0.5}, {"words": 0.01}, noise=0.5)


def of_truth() -> Rater:
    return Rater("dazzled", {"right": 1.0, "followed": 1.0}, {"confident": 2.0}, verify=0.2, noise=0.5, knowledge=WORLD)


def true_taste_of_text() -> TrueTaste:
    return TrueTaste({"plain": of_text()})


def true_taste_of_truth() -> TrueTaste:
    return TrueTaste({"plain": of_text(), "dazzled": of_truth()}, shares={"plain": 1.0, "dazzled": 3.0})


@conforms_reward_source(of_text)
def test_a_rater_of_any_text_conforms(check: Check) -> None:
    check()


@conforms_reward_source(true_taste_of_text)
def test_true_taste_of_any_text_conforms(check: Check) -> None:
    check()


# A rater that knows the world refuses the kit's own prompts, which nobody in the world asks.
@conforms_reward_source(of_truth, prompts=ASKED, answers=ANSWERS)
def test_a_rater_who_knows_the_world_conforms(check: Check) -> None:
    check()


@conforms_reward_source(true_taste_of_truth, prompts=ASKED, answers=ANSWERS)
def test_true_taste_in_the_world_conforms(check: Check) -> None:
    check()
