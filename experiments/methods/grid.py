"""The methods that are compared, and the strengths at which each is run.

A strength is what moves the method along its own frontier: the price of leaving the reference where there is one, else
the number of optimizer steps, or n. Everything else is as the method's option has it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One method as overrides of `experiment=methods`.

    Args:
        overrides: that choose it.
        knob: what is varied, as an override's key.
        values: of the knob.
    """

    overrides: tuple[str, ...]
    knob: str
    values: tuple[float, ...]


STEPS = "pipeline.method.loop.steps"
BETA = "pipeline.method.objective.beta"
PRICE = "pipeline.method.advantage.beta"


def pairs(objective: str, knob: str = BETA, values: tuple[float, ...] = (0.2, 0.5, 1.5)) -> Method:
    """A loss on the raters' pairs, with a reference."""
    return Method(("stage@pipeline.method=dpo", f"pipeline.method.objective={objective}"), knob, values)


def free(objective: str) -> Method:
    """A loss on the raters' pairs, without a reference; at DPO's learning rate."""
    overrides = (
        "stage@pipeline.method=simpo",
        f"pipeline.method.objective={objective}",
        "pipeline.method.optimizer.lr=3.0e-4",
    )
    return Method(overrides, STEPS, (40, 120, 300))


def online(stage: str, knob: str, values: tuple[float, ...]) -> Method:
    """A method that samples, and is rewarded by the reward model."""
    return Method((f"stage@pipeline.method={stage}",), knob, values)


BEST_OF_N = (
    "+stage@pipeline.best_of_n=best_of_n",
    "stage@pipeline.method=sft",
    "pipeline.method.inputs={policy: sft, answers: best_of_n}",
    "pipeline.method.replay=0.25",
    "pipeline.method.optimizer.lr=3.0e-4",
    "pipeline.method.loop={steps: 150, validate_every: 50, patience: null}",
)

METHODS: dict[str, Method] = {
    "dpo": pairs("dpo"),
    "ipo": pairs("ipo", "pipeline.method.objective.tau", (0.03, 0.1, 0.3, 1.0)),
    "cdpo": pairs("cdpo"),
    "rdpo": pairs("rdpo"),
    "soft_dpo": pairs("soft_dpo"),
    "slic": pairs("slic", BETA, (0.3, 1.0)),
    "apo_zero": pairs("apo_zero", BETA, (0.2, 0.5, 1.5, 4.0)),
    "length_normalized_dpo": pairs("length_normalized_dpo", BETA, (2.0, 6.0)),
    "wpo": pairs("wpo"),
    "dpo_sft": pairs("dpo_sft", "pipeline.method.objective.objectives.dpo.beta", (0.07, 0.2, 0.5)),
    "simpo": free("simpo"),
    "orpo": free("orpo"),
    "cpo": free("cpo"),
    "kto": Method(("stage@pipeline.method=kto",), BETA, (0.2, 0.5, 1.5, 4.0)),
    "imitation of chosen": free("chosen_nll"),
    "best of n": Method(BEST_OF_N, "pipeline.best_of_n.samples_per_prompt", (2, 4, 16)),
    "online dpo": online("online_dpo", BETA, (0.2, 0.5, 1.5, 4.0)),
    "ppo": online("ppo", PRICE, (0.2, 0.4, 0.8)),
    "rloo": online("rloo", PRICE, (0.1, 0.2, 0.3)),
    "reinforce++": online("reinforce_plus_plus", PRICE, (0.1, 0.2, 0.3)),
    "grpo": online("grpo", BETA, (0.04, 0.2, 0.6, 1.5)),
    "dr. grpo": online("dr_grpo", STEPS, (16, 24, 48)),
    "dapo": online("dapo", STEPS, (12, 24, 48)),
    "gspo": online("gspo", STEPS, (24, 48, 96)),
    "cispo": online("cispo", STEPS, (12, 24, 48)),
}
