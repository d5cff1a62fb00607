"""What is installed: the wheel holds every plugin and option, the pins fit the bounds, the root files say the same."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PLUGINS = sorted(p.name for p in (ROOT / "plugins").iterdir() if (p / "__init__.py").is_file())


def pins() -> dict[str, str]:
    """Version of every package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[Requirement]:
    """What alignlab asks for, with all its extras."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    words = [*PROJECT["project"]["dependencies"], *(word for extra in extras for word in extra)]
    return [r for r in map(Requirement, words) if r.name != "alignlab"]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_requirement_has_an_upper_bound_and_a_fitting_pin(requirement: Requirement) -> None:
    assert any(s.operator == "<" for s in requirement.specifier), f"{requirement} has no upper bound"
    pinned = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned), f"constraints.txt pins {requirement.name} {pinned}"


def test_the_pinned_set_is_closed() -> None:
    """Whatever an installed requirement asks for is pinned too: a new release elsewhere changes nothing here."""
    known, missing = pins(), set()
    for name, pinned in known.items():
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue  # another platform's
        if installed != pinned:
            continue  # not the pinned set-up, which may ask for other things
        asked = [Requirement(word) for word in requires(name) or []]
        environment = {**default_environment(), "extra": ""}
        needed = [r for r in asked if r.marker is None or r.marker.evaluate(environment)]
        missing |= {f"{name} needs {r.name}" for r in needed if canonicalize_name(r.name) not in known}
    # torch's CUDA build brings its own, at one version each.
    assert not {m for m in missing if not re.search(r"needs (nvidia|cuda)", m)}


def test_torch_is_pinned_plainly() -> None:
    assert pins()["torch"] == "2.13.0"


def test_every_plugin_has_one_entry_point() -> None:
    declared = PROJECT["project"]["entry-points"]["alignlab.plugins"]
    assert sorted(declared.values()) == PLUGINS
    assert {f"alignlab_{name}" for name in declared} == set(PLUGINS)


def test_tests_check_the_types_of_every_package() -> None:
    (option,) = re.findall(r"--jaxtyping-packages=(\S+)", PROJECT["tool"]["pytest"]["ini_options"]["addopts"])
    assert sorted(option.split(",")[:-1]) == ["alignlab", *PLUGINS]


def test_only_yaml_below_conf() -> None:
    files = [p for p in (ROOT / "conf").rglob("*") if p.is_file() and p.suffix != ".yaml"]
    assert not files, f"a file that is not YAML below conf/ breaks editable installs: {files}"


def test_every_plugin_brings_a_page_options_and_tests() -> None:
    for plugin in PLUGINS:
        folder = ROOT / "plugins" / plugin
        assert (folder / "README.md").is_file() and list(folder.glob("conf/*/*.yaml")), plugin
        assert list(folder.glob("tests/test_*.py")), plugin


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    pytest.importorskip("hatchling", reason="builds a wheel without fetching anything")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True, timeout=120)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_every_module_and_option_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [*tracked("alignlab"), *tracked("conf"), *tracked("plugins")]
    installed = [re.sub(r"^conf/", "alignlab/conf/", re.sub(r"^plugins/", "", name)) for name in files]
    wanted = {name for name in installed if "/tests/" not in name and name != "README.md"}
    assert names == wanted


def tracked(folder: str) -> list[str]:
    """Files below a folder that belong to the project, relative to the root."""
    files = [p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return [p.relative_to(ROOT).as_posix() for p in files]


def test_the_installed_wheel_answers_as_the_checkout_does(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    shown = []
    for path in ([str(tmp_path / "site")], [str(ROOT), str(ROOT / "plugins")]):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "COLUMNS": "160"}
        command = [sys.executable, "-m", "alignlab", "plugins"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    assert shown[0] == shown[1] and all(plugin in shown[0] for plugin in PLUGINS)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("hydra/launcher=joblib hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs: must be a whole number"),
        ("hydra/sweeper=optuna sweep.metric=null", "sweep.metric"),
    ],
)
@pytest.mark.slow
def test_hydra_finds_the_launchers_and_the_sweeper_of_the_installed_wheel(
    option: str, message: str, wheel: Path, tmp_path: Path
) -> None:
    """Hydra looks in `hydra_plugins` alone; `-S` keeps an editable install out of the way."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    path = os.pathsep.join([str(tmp_path / "site"), sysconfig.get_path("purelib")])
    command = [sys.executable, "-S", "-m", "alignlab", "-m", "experiment=smoke", "seed=0,1", *option.split()]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and message in done.stderr, done.stderr


def test_the_readme_opens_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (first,) = re.findall(r"\A.*?```\w*\n(.*?)```", text, re.DOTALL)
    assert [line.split("#")[0].strip() for line in first.strip().splitlines()] == ["make demo", "make test"]


def test_what_the_readme_and_ci_call_is_made_by_the_makefile() -> None:
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        called = set(
            re.findall(r"^(?:step \")?make ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        )
        assert called and called <= made, f"{name}: {called - made}"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_every_place_that_the_architecture_page_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = re.findall(r"`((?:alignlab|plugins|conf|tests)/[\w/.]+)(?:::(\w+))?`", text)
    assert len(places) > 40
    for file, name in places:
        assert (ROOT / file).exists(), file
        if name:
            source = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^(?:class|def) {name}\b", source, re.MULTILINE), f"{file}::{name}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "plugins/README.md", "docs/write-a-plugin.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing
