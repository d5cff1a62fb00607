"""ImportJudgements: judgements of people, several of one pair or list, aggregated into preferences."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from alignlab.artifact import Artifact, Kind, write_lines
from alignlab.data import conversations, preferences
from alignlab.data.records import Comparison, Prompt
from alignlab.data.split import held_out
from alignlab.digests import digest_of_file
from alignlab.errors import DataError
from alignlab.judgements.aggregation import Aggregate, Consensus, Majority, votes
from alignlab.judgements.records import JUDGEMENTS, Judgement, by_item, check_items, file_of, read
from alignlab.judgements.summary import agreement, categories
from alignlab.metrics import Estimate, with_intervals
from alignlab.policy.previews import compared_texts
from alignlab.stage import Stage, StageContext

MAJORITY: Final = Majority()


class ImportJudgements(Stage):
    """Write the judgements of some files as a preferences artifact, one preference for each pair of answers.

    The files are those that `stage: label` writes (`judgements.jsonl`), so that people and simulated raters are
    interchangeable. Judgements of more than two answers are taken apart into pairs: a ranking compares every two, a
    choice compares the chosen answer with each other.

    A line's `split` is kept. Items without one are split by a hash of their prompt, so that no prompt is in both parts.

    Args:
        files: one or several, JSON lines; a folder stands for the `judgements.jsonl` in it. Judgements of the same `id`
            are of the same answers to the same prompt, whatever file they are in.
        aggregate: makes one label of several judgements.
        validation_fraction: of the prompts without a split, held out; above 0 and below 1.
        inputs: none.
        seed: not used; the split is fixed.
    """

    VERSION: ClassVar[str] = "1"
    PRODUCES: ClassVar[Kind] = "preferences"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"inputs", "seed", "files"})

    def __init__(
        self,
        *,
        files: str | Sequence[str],
        aggregate: Aggregate = MAJORITY,
        validation_fraction: float = 0.1,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        if not 0 < validation_fraction < 1:
            raise ValueError(
                f"ImportJudgements: validation_fraction must be above 0 and below 1, got {validation_fraction}; stages "
                f"that learn from preferences validate on some"
            )
        self.files = files
        self.aggregate = aggregate
        self.validation_fraction = validation_fraction

    @property
    def paths(self) -> list[str]:
        """The files."""
        return [self.files] if isinstance(self.files, str) else list(self.files)

    def content_digest(self) -> str:
        """Digest of the files, in their order; what cannot be imported is found here, before anything trains."""
        self._items(self._read())
        return "\n".join(digest_of_file(file_of(path)) for path in self.paths)

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Write `preferences.jsonl`, and the judgements as they are into `judgements.jsonl`."""
        given = self._read()
        items, prompts, parts = self._items(given)
        agreed = self.aggregate(votes(given))
        rows = [_row(prompts[c.pair[0]], parts[c.pair[0]], c, items[c.pair[0]]) for c in agreed]
        preferences.write(context.folder, rows)
        write_lines(context.folder / JUDGEMENTS, (j.to_json() for j in given))
        context.tracker.table("preferences", compared_texts(Comparison(prompts[c.pair[0]], *_order(c)) for c in agreed))
        return with_intervals(_metrics(given, agreed, rows))

    def _read(self) -> list[Judgement]:
        return check_items(j for path in self.paths for j in read(path))

    def _items(
        self, given: Sequence[Judgement]
    ) -> tuple[Mapping[str, Sequence[Judgement]], Mapping[str, Prompt], Mapping[str, str]]:
        """The judgements of every item that were made, its prompt and its part.

        Raises:
            DataError: none was made, a prompt is none, or the parts are wrong.
        """
        items = by_item(given)
        if not items:
            raise DataError(f"{', '.join(self.paths)}: no judgement was made, so there is nothing to prefer")
        prompts = {item: _prompt(made[0]) for item, made in items.items()}
        return items, prompts, self._split(items, prompts)

    def _split(self, items: Mapping[str, Sequence[Judgement]], prompts: Mapping[str, Prompt]) -> dict[str, str]:
        """The part of every item.

        Raises:
            DataError: a prompt would be in both parts, or one part is empty.
        """
        known = {item: made[0].split for item, made in items.items()}
        keys = {item: conversations.prompt_key(prompt) for item, prompt in prompts.items()}
        of_key = {keys[item]: part for item, part in known.items() if part is not None}
        free = {key for key in keys.values() if key not in of_key}
        if len(free) > 1:
            held = held_out(free, self.validation_fraction)
            of_key |= {key: "validation" if key in held else "train" for key in free}
        else:
            of_key |= dict.fromkeys(free, "train")
        both = [item for item, part in known.items() if part is not None and of_key[keys[item]] != part]
        if both:
            raise DataError(
                f"{items[both[0]][0].source}: its prompt is in both splits; give it the same one everywhere"
            )
        if len(set(of_key.values())) < 2:
            raise DataError(
                f"{', '.join(self.paths)}: all items are in one split ({len(of_key)} prompts); stages that learn from "
                f"preferences need items of both"
            )
        return {item: of_key[key] for item, key in keys.items()}


def _prompt(judgement: Judgement) -> Prompt:
    """The prompt as a conversation that ends with the user.

    Raises:
        DataError: it is none; the message names file and line.
    """
    facts = tuple(judgement.facts.items())
    if isinstance(judgement.prompt, str):
        return Prompt(Prompt.user(judgement.prompt).messages, facts)
    try:
        turns = conversations.of_messages(judgement.prompt)
    except ValueError as error:
        raise DataError(f"{judgement.source}: prompt: {error}") from error
    if turns[-1].role != "user":
        raise DataError(f"{judgement.source}: the last message of a prompt must be the user's, found {turns[-1].role}")
    return Prompt(turns, facts)


def _order(consensus: Consensus) -> tuple[str, str]:
    """The better answer and the other one."""
    _, first, second = consensus.pair
    return (first, second) if consensus.first >= 0.5 else (second, first)


def _row(prompt: Prompt, split: Any, consensus: Consensus, made: Sequence[Judgement]) -> dict[str, Any]:
    notes = consensus.notes()
    rater = {"rater": made[0].rater} if len(made) == 1 else {}
    logged = {"item": consensus.pair[0], "judgements": consensus.count, "source": made[0].source, **rater}
    return preferences.row(Comparison(prompt, *_order(consensus), notes=notes), split, **logged)


def _metrics(
    given: Sequence[Judgement], agreed: Sequence[Consensus], rows: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    made = [j for j in given if j.made]
    longer = [(r["item"], len(r["chosen"].split()), len(r["rejected"].split())) for r in rows]
    shares = {
        "chosen_longer": Estimate.share((item, a > b) for item, a, b in longer if a != b),
        "tied": Estimate.share((c.pair[0], c.tied) for c in agreed),
        "first_preferred": Estimate.share((j.id, j.choice == 0) for j in made if j.choice is not None),
    }
    found = agreement(categories(given))
    agree = {"raters_agree": found["observed"], "krippendorff_alpha": found["krippendorff_alpha"]}
    return {
        "judgements": float(len(made)),
        "raters": float(len({j.rater for j in made})),
        "pairs": float(len(rows)),
        "validation_pairs": float(sum(r["split"] == "validation" for r in rows)),
        **{name: value for name, value in {**shares, **agree}.items() if value is not None},
    }
