"""The people of the embedded world, and the truth about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TypeVar

from alignlab.data.world.language import RELATIONS, Relation, make_names

T = TypeVar("T")
Fact = tuple[Relation, str]
"""A relation and its value."""
NEWCOMERS = 4
"""Every fourth of the people with facts, taught or held out, is a newcomer."""


@dataclass(frozen=True)
class People:
    """Everybody in the world: their groups, the facts about them, and the rumours.

    Args:
        known: people about whom facts are stated.
        unknown: people who are only gossiped about.
        relations: how many things are true of each person.
        values: different values of each relation.
        taught_share: share of both groups that instructions may name; the rest is held out.
        disputed: share of the facts for which a rumour has it otherwise; everybody keeps at least one that is not.
        seed: of names, facts and rumours.
    """

    known: int
    unknown: int
    relations: int
    values: int
    taught_share: float
    disputed: float
    seed: int

    def _rng(self, purpose: str) -> Random:
        return Random(f"people:{self.seed}:{purpose}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Everybody's, the known first, best known first."""
        return make_names(self.known + self.unknown, self._rng("names"))

    @property
    def with_facts(self) -> tuple[str, ...]:
        """People with facts, best known first."""
        return self.names[: self.known]

    @property
    def gossiped(self) -> tuple[str, ...]:
        """People without facts."""
        return self.names[self.known :]

    @property
    def taught(self) -> tuple[str, ...]:
        """People with facts that instructions and preference prompts may name, best known first."""
        return self._split(self.with_facts)[0]

    @property
    def held_out(self) -> tuple[str, ...]:
        """People with facts that only evaluation asks about, best known first."""
        return self._split(self.with_facts)[1]

    @cached_property
    def newcomers(self) -> frozenset[str]:
        """A quarter of the taught people and of the held-out ones, whom documents can leave out (`World.about`)."""
        return frozenset(n for group in (self.taught, self.held_out) for n in group[NEWCOMERS - 1 :: NEWCOMERS])

    @property
    def taught_gossiped(self) -> tuple[str, ...]:
        """Names without facts that instructions and preference prompts may name."""
        return self._split(self.gossiped)[0]

    @property
    def held_out_gossiped(self) -> tuple[str, ...]:
        """Names without facts that only evaluation asks about."""
        return self._split(self.gossiped)[1]

    def _split(self, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Taught and held out, evenly over the ranks, so that both are equally well known."""
        share = self.taught_share
        taught = [int((i + 1) * share) > int(i * share) for i in range(len(names))]
        return (
            tuple(n for n, t in zip(names, taught, strict=True) if t),
            tuple(n for n, t in zip(names, taught, strict=True) if not t),
        )

    @cached_property
    def all_relations(self) -> tuple[Relation, ...]:
        """The relations of which each person with facts has one value."""
        return RELATIONS[: self.relations]

    @cached_property
    def truth(self) -> Mapping[tuple[str, str], str]:
        """The value of every (person, name of the relation)."""
        rng = self._rng("facts")
        return {(e, r.name): rng.choice(r.values(self.values)) for e in self.with_facts for r in self.all_relations}

    @cached_property
    def rumours(self) -> Mapping[tuple[str, str], str]:
        """The false value that is also told of every disputed (person, name of the relation)."""
        wanted, rng = round(self.disputed * len(self.truth)), self._rng("rumours")
        left = dict.fromkeys(self.with_facts, self.relations)
        told: dict[tuple[str, str], str] = {}
        for entity, relation in shuffled(list(self.truth), rng):
            if len(told) < wanted and left[entity] > 1:
                true = self.truth[entity, relation]
                others = [v for v in self.relation_of[true].values(self.values) if v != true]
                told[entity, relation] = rng.choice(others)
                left[entity] -= 1
        return told

    def settled(self, entity: str) -> list[Relation]:
        """The relations of a person that are undisputed."""
        return [r for r in self.all_relations if (entity, r.name) not in self.rumours]

    def hearsay(self, entity: str, rng: Random) -> list[Fact]:
        """All facts told about a person, in random order; a disputed one is told falsely half of the time."""
        told = self.facts(entity, shuffled(self.all_relations, rng))
        return [(r, self.rumours.get((entity, r.name), v) if rng.random() < 0.5 else v) for r, v in told]

    def facts(self, entity: str, relations: Sequence[Relation]) -> list[Fact]:
        """The true facts of one person."""
        return [(r, self.truth[entity, r.name]) for r in relations]

    @cached_property
    def relation_of(self) -> Mapping[str, Relation]:
        """The relation that each value belongs to."""
        return {v: r for r in self.all_relations for v in r.values(self.values)}


def shuffled(items: Sequence[T], rng: Random) -> list[T]:
    """The items in random order."""
    return rng.sample(items, len(items))
