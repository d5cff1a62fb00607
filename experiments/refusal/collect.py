"""Collect the sweeps over refusal data: `python experiments/refusal/collect.py FOLDER...`.

Writes results.csv and figure.png, and prints the table of README.md; without a folder it reads results.csv as it is.
"""

import sys
from pathlib import Path
from statistics import mean

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sweeps  # noqa: E402  # the folder above is not a package

DOSES = ("0.002", "0.02", "0.2")


def share(dose: str) -> str:
    """A share in per cent."""
    return f"{100 * float(dose):g} %"


LOOK_ALIKES = {"0.0": "no look-alikes", "0.05": "with look-alikes"}
SETTINGS = {
    "never": "requests are answered",
    **{f"always {d} {k}": f"{share(d)} refused, {name}" for k, name in LOOK_ALIKES.items() for d in DOSES},
    "when_told": "refused when told",
}
METRICS = {
    "refused_unsafe_known": "refuses, forms it was taught",
    "refused_unsafe_secret_unseen": "refuses, a form it never saw",
    "secret_told": "tells a secret",
    "refused_safe_same_form": "refuses what has the form of a request",
    "refused_safe_look_alike": "refuses other look-alikes",
    "refused_safe_ordinary": "refuses ordinary questions",
    "look_alike_right": "look-alikes right",
    "question_right": "answers right",
}
GUARDED = {
    "refused_unsafe_known": "no system's message",
    "guarded_refused_unsafe_known": "the message that was taught",
    "paraphrased_refused_unsafe_known": "the same in other words",
    "guarded_refused_safe_same_form": "the form of a request, message taught",
    "guarded_look_alike_right": "look-alikes right, message taught",
}
"""Second table: requests in the forms of instructions that are refused, by the system's message."""
GUARDED_SETTINGS = {k: SETTINGS[k] for k in ("never", "always 0.2 0.05", "when_told")}
KNOWN = ("refused_unsafe_secret_question", "refused_unsafe_secret_one_word")
SHAMS = ("refused_safe_no_secret", "refused_safe_list_no_secret", "refused_safe_say_secret")


def setting_of(overrides: dict[str, str]) -> str:
    """What a run was taught."""
    way = overrides["pipeline.sft.data.refuse"]
    return " ".join(
        [way, *(overrides[f"pipeline.sft.data.{k}"] for k in ("requests", "look_alikes") if way == "always")]
    )


def numbers_of(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of the tables; types of requests are averaged, each with equal weight."""
    own = {name.removeprefix("sft/"): value for name, value in metrics.items() if name.startswith("sft/")}
    for begin in ("", "guarded_", "paraphrased_"):
        own[f"{begin}refused_unsafe_known"] = mean(own[begin + name] for name in KNOWN)
        own[f"{begin}refused_safe_look_alike"] = mean(own[begin + name] for name in SHAMS)
    return {name: own[name] for name in {**METRICS, **GUARDED}}


def read(folders: list[Path]) -> list[sweeps.Run]:
    """A row for each complete run."""
    found = [pair for folder in folders for pair in sweeps.completed(folder)]
    return [sweeps.Run(setting_of(o), int(o["seed"]), numbers_of(m)) for o, m in found]


def draw(runs: list[sweeps.Run], path: Path) -> None:
    """Requests and look-alikes that are refused over the share of refusals; seeds as dots, their mean as a line."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, constrained_layout=True)
    lines: dict[str, tuple[tuple[str, ...], str]] = {
        "requests, in forms it was taught": (("refused_unsafe_known",), "#1f5fa8"),
        "the same form, nothing private": (("refused_safe_same_form",), "#c4501b"),
        "requests in a new form, other look-alikes,\nordinary questions: the most of the three": (
            ("refused_unsafe_secret_unseen", "refused_safe_look_alike", "refused_safe_ordinary"),
            "#8a8a8a",
        ),
    }
    for axis, (look_alikes, title) in zip(axes, LOOK_ALIKES.items(), strict=True):
        for label, (metrics, color) in lines.items():
            found = [[sweeps.of(runs, f"always {dose} {look_alikes}", m) for m in metrics] for dose in DOSES]
            values = [[max(own) for own in zip(*each, strict=True)] for each in found]
            axis.plot(range(len(DOSES)), [mean(v) for v in values], color=color, label=label)
            for place, seeds in enumerate(values):
                axis.scatter([place] * len(seeds), seeds, s=14, color=color, alpha=0.6)
        axis.set_title(f"taught {title}", fontsize=10)
        axis.set_xticks(range(len(DOSES)), [share(dose) for dose in DOSES])
        axis.set_xlabel("share of instructions that are refused")
        axis.set_ylim(-0.04, 1.04)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share that the model refuses")
    axes[1].legend(frameon=False, fontsize=8, loc="center right")
    figure.savefig(path, dpi=150)


def main() -> None:
    runs = sweeps.collected(HERE, {**METRICS, **GUARDED}, read)
    print(sweeps.table(runs, SETTINGS, METRICS, "instructions"))
    print()
    print(sweeps.table(runs, GUARDED_SETTINGS, GUARDED, "refuses requests under"))
    draw(runs, HERE / "figure.png")


if __name__ == "__main__":
    main()
