"""experiments/fixed_points: its smallest parts run, and the peers' where their packages are installed."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.optimum import Tilted

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "fixed_points"
FILES = ("table", "ours", "peers")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a file of the experiment."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in FILES:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_ours_are_brought_to_one_price_and_measured(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = script("ours")
    monkeypatch.setattr(ours, "BUFFERS", 2)
    monkeypatch.setattr(ours, "write", lambda *_: pytest.fail("some methods are not the whole table"))
    ours.main(["objective=dpo", "objective=reinforce"])
    (line,) = (text for text in capsys.readouterr().out.splitlines() if "objective=dpo" in text)
    _, name, own, distance, away, *_ = (cell.strip() for cell in line.split("|"))
    assert (name, own) == ("objective=dpo", "Tilted(beta=0.3)")
    assert float(distance) < 1e-9 and float(away) < 1e-9


def test_rows_of_other_libraries_stay(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    table = script("table")
    file = tmp_path / "results.csv"
    table.write([table.Row("A 1", "x"), table.Row("B 1", "y", away=0.25)], file)
    table.write([table.Row("A 2", "z")], file)
    lines = file.read_text(encoding="utf-8").splitlines()[1:]
    assert [line.partition(",,")[0] for line in lines] == ["A 2,z", "B 1,y"] and "0.25" in lines[1]


def test_the_driver_ends_where_known_losses_end(script: Callable[[str], ModuleType]) -> None:
    """Examples are weighted from outside of a loss that takes a plain mean."""
    peers = script("peers")

    def dpo(logp: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        chosen, rejected = (logp - reference).sum(-1)
        return -logsigmoid(peers.BETA * (chosen - rejected)).mean()

    def credit(reward: Tensor, old: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        paid = (reward - peers.BETA * (old - reference).sum(-1)).view(-1, 2)
        return (paid - paid.flip(1)).view(-1)

    def reinforce(logp: Tensor, reference: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        return -(advantage * logp.sum(-1)).mean()

    for peer in (
        peers.Pairs("DPO", dpo, Tilted(peers.BETA)),
        peers.Groups("RLOO", credit, reinforce, Tilted(peers.BETA), pays_kl=True),
    ):
        found = peers.row("own", peer)
        assert found.distance is not None and found.distance < 1e-9, found


@pytest.mark.filterwarnings("ignore")  # of their packages, when they are imported
@pytest.mark.parametrize(
    ("library", "module", "method"),
    [
        ("trl", "trl.trainer.dpo_trainer", "DPO sigmoid"),
        ("openrlhf", "openrlhf", "DPOLoss"),
        ("verl", "verl.trainer.ppo.core_algos", "rloo_vectorized, vanilla, KL in the reward"),
    ],
)
def test_peers_end_where_the_table_says(
    library: str, module: str, method: str, script: Callable[[str], ModuleType]
) -> None:
    pytest.importorskip(module, reason=f"{library} is not installed; see {FOLDER.name}/README.md", exc_type=ImportError)
    peers = script("peers")
    _, methods, rest = peers.LIBRARIES[library]
    (peer,) = (p for p in methods() if p.name == method)
    found = peers.row(library, peer, rest)
    assert found.away is not None and found.away < 1e-9, found
