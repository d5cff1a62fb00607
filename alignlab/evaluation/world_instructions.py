"""Instruction following that can be checked, in the embedded world: the kinds of IFEval that its language can say."""

from typing import ClassVar

from alignlab.artifact import Artifact
from alignlab.data.world import ConstrainedWorld
from alignlab.data.world.constrained import Constrained, laid_out
from alignlab.evaluation.instructions import TaskEvaluation
from alignlab.evaluation.world import check_own_world
from alignlab.instructions import Task, instruction


class WorldInstructions(TaskEvaluation):
    """Ask questions about held-out people that say how they must be answered, and check the answers' form.

    Whether the answers are true is measured by `WorldEvaluation`.

    Args:
        world: the world that the policy was trained in.
        pairs: ask for two things at once, which no instruction did.
        name: begins the name of every metric, so that one stage can measure with and without pairs.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, world: ConstrainedWorld, pairs: bool = False, name: str = "") -> None:
        self.world = world
        self.pairs = pairs
        questions = world.constrained_questions(pairs)
        super().__init__(
            [Task(q.text, tuple(instruction(r.kind, r.arguments) for r in q.rules), {}) for q in questions], name
        )

    def check_model(self, model: Artifact) -> None:
        """Refuse a model that was trained in another world.

        Raises:
            ConfigError: names what differs, and the settings of the model's own world.
        """
        check_own_world(type(self).__name__, self.world, model)

    def printed(self, answer: str) -> str:
        """Each bullet on a line of its own, which the world's language does without."""
        return laid_out(answer)


def _task(question: Constrained) -> Task:
    return Task(question.text, tuple(instruction(rule.kind, rule.arguments) for rule in question.rules), {})
