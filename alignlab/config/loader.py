"""Hydra's configuration loader, for overrides as they are typed.

Every configuration, alone or of a sweep's job, in this process or in a launcher's worker, is composed by `Loader`. So
overrides keep the form in which they were typed until the very end, wherever they come from (the command line,
`hydra.sweeper.params` in a file, a sweeper's own suggestion), and what manifests and tags show is what was typed.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from alignlab.config import hydra_keys, options, untrusted
from alignlab.config.bases import Base, Bases, split
from alignlab.config.files import Repository
from alignlab.config.grammar import parse
from alignlab.config.internals import CachingConfigRepository, ConfigLoaderImpl, create_defaults_list
from alignlab.config.overrides import Choice, Choices, Reader
from alignlab.config.replaced import Replaced, Tree, rename
from alignlab.errors import ConfigError

NAME: Final = "config"
"""Of the root configuration."""
GIVEN: Final = ("command-line", "--config")
"""Hydra's providers of what comes from a folder or file that the command was given."""


class Loader(ConfigLoaderImpl):
    """Composes configurations from overrides as they are typed.

    Args:
        config_search_path: Hydra's.
        folders: of options, that the command was given.
        typed: all overrides of the command; those for Hydra's own section are trusted, unlike a folder's.
        is_guarded: whether what is composed may come from somebody else.
    """

    def __init__(
        self,
        config_search_path: ConfigSearchPath,
        folders: Sequence[Path] = (),
        typed: Sequence[str] = (),
        is_guarded: bool = False,
    ) -> None:
        super().__init__(config_search_path)
        self.repository = Repository(config_search_path)
        self.catalog = options.catalog(options.options(folders))
        self.top = options.top_groups()
        self.on_job: Callable[[Tree, Sequence[str]], object] | None = None
        """Checks the configuration of each job of a sweep before the job's folder is made; not sent to workers."""
        self.sweep_dir: str | None = None
        """Folder of the sweep that the jobs belong to."""
        self.flags: list[str] = []
        """Flags that a command with the same configuration needs: `--config-dir FOLDER`."""
        self._ready: dict[tuple[str, ...], tuple[Tree, int]] = {}
        self._own = [p.input_line for p in parse(typed) if p.is_hydra_override()]
        self._typed = [str(p.key_or_group) for p in parse(typed)]
        self._is_guarded = is_guarded or bool(folders) or any("hydra.searchpath" in text for text in self._own)
        self._trusted: Tree = None
        self._files: dict[str, ConfigResult | None] = {}
        self._replaced: Replaced | None = None
        self._repository: CachingConfigRepository | None = None
        self._bases = Bases()
        self._selected: dict[str, str] = {}
        self._added: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """The state without the parts that a launcher's worker cannot use."""
        without: dict[str, Any] = {"on_job": None, "_ready": {}, "_files": {}, "_replaced": None, "_repository": None}
        return {**self.__dict__, **without, "_bases": Bases()}

    def keep(self, cfg: Tree, run_mode: RunMode, overrides: Sequence[str], uses: int = 1) -> None:
        """Let the next `uses` compositions of these overrides be this configuration: it is composed already."""
        self._ready[self._key(run_mode, overrides)] = (cfg, uses)

    # ---- composing ------------------------------------------------------------------------------------------------
    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> Tree:
        """The configuration of some overrides.

        Raises:
            ConfigError: an override cannot be meant as it is written, or a folder sets what it must not set.
        """
        if (cfg := self._kept(run_mode, overrides)) is not None:
            return cfg
        self._files = {}
        hydra_keys.forget_schemas_of_others()
        hydra_keys.check(overrides, self)
        written = self._written(config_name, overrides, run_mode)
        try:
            cfg = self._composed(config_name, written, run_mode, from_shell, validate_sweep_overrides)
        except HydraException as error:
            if ours := hydra_keys.untaken(overrides, self):
                raise ours from error
            raise
        if self._replaced is not None:
            rename(cfg, self._replaced.renames())
        self._show_as_typed(cfg, overrides)
        if self._is_guarded:
            untrusted.check(cfg, self._trusted_hydra(run_mode), self._typed, run_mode == RunMode.RUN)
        if run_mode == RunMode.RUN and self.on_job is not None:
            self.on_job(cfg, overrides)
            self.keep(cfg, run_mode, overrides)  # Hydra's sweepers compose each job once to see that it can be
        return self._placed(cfg)

    def _composed(self, name: str | None, written: list[str], run_mode: RunMode, *checks: bool) -> Tree:
        """The configuration as Hydra composes it; see `bases`."""
        parsed = parse(written)
        if run_mode != RunMode.RUN or any(override.is_sweep_override() for override in parsed):
            return super().load_configuration(name, written, run_mode, *checks)
        fixed, values = split(parsed, self.repository.group_exists)
        if (base := self._bases.get(name, fixed)) is None:
            cfg = super().load_configuration(name, fixed, run_mode, *checks)
            assert self._repository is not None
            base = self._bases.keep(name, fixed, Base(cfg, self._replaced, self._repository.group_exists))
        if not base.takes(values):  # a group that `hydra.searchpath` brings
            return super().load_configuration(name, written, run_mode, *checks)
        self._replaced = base.replaced
        return base.with_values(values)

    def load_sweep_config(self, master_config: Tree, sweep_overrides: list[str]) -> Tree:
        """The configuration of a job: its own overrides, and those of the sweep for Hydra's section."""
        own: Any = OmegaConf.to_container(master_config.hydra.overrides.hydra)
        name = master_config.hydra.job.config_name
        cfg = self.load_configuration(name, [*own, *sweep_overrides], RunMode.RUN)
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)  # the same time in `${now:...}`
        return cfg

    def _kept(self, run_mode: RunMode, overrides: Sequence[str]) -> Tree:
        cfg, uses = self._ready.pop(self._key(run_mode, overrides), (None, 0))
        if uses > 1:
            self.keep(cfg, run_mode, overrides, uses - 1)
        return None if cfg is None else self._placed(cfg)

    def _key(self, run_mode: RunMode, overrides: Sequence[str]) -> tuple[str, ...]:
        """Key of a composition within one command, all of whose compositions share the overrides of Hydra's section."""
        return (str(run_mode), *(o for o in overrides if o not in self._own and o != "hydra.mode=MULTIRUN"))

    def _placed(self, cfg: Tree) -> Tree:
        """The configuration with the folder of its sweep."""
        if self.sweep_dir is not None:
            with read_write(cfg.hydra):
                cfg.hydra.sweep.dir = self.sweep_dir
        return cfg

    def _show_as_typed(self, cfg: Tree, overrides: Sequence[str]) -> None:
        typed = [p for p in parse(overrides) if not p.is_hydra_override()]
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.overrides.task = [p.input_line for p in typed]
            how = cfg.hydra.job.config.override_dirname
            shown = sorted(str(p.input_line) for p in typed if p.key_or_group not in how.exclude_keys)
            cfg.hydra.job.override_dirname = str(how.item_sep).join(shown).replace("=", how.kv_sep)

    def _trusted_hydra(self, run_mode: RunMode) -> Tree:
        """Hydra's section as the root and the command line have it, without any option of a folder."""
        if self._trusted is None:
            path = copy.deepcopy(self.config_search_path)
            path.get_path()[:] = [place for place in path.get_path() if place.provider not in GIVEN]
            written = [text for text in self._own if not text.lstrip("+").startswith("hydra.searchpath")]
            loader = ConfigLoaderImpl(path)
            for choice in parse(written):
                hydra_keys.check_installed(choice, loader)
            self._trusted = loader.load_configuration(NAME, written, run_mode, True, False).hydra
        return self._trusted

    # ---- overrides ------------------------------------------------------------------------------------------------
    def _written(self, config_name: str | None, overrides: Sequence[str], run_mode: RunMode) -> list[str]:
        """The overrides as Hydra takes them."""
        reader = Reader(overrides, self.catalog, self.top)
        known = self._choices(config_name, reader.settled()) if reader.needs_choices() else {}
        items = reader.read(known)
        written = [item for item in items if isinstance(item, str)]
        if run_mode == RunMode.MULTIRUN:  # what is removed may exist in the jobs only
            written = [text for text in written if not text.startswith("~")]
        choices = sorted((i for i in items if isinstance(i, Choice)), key=lambda c: c.package.count("."))
        self._selected, self._added = {}, []
        added: list[str] = []
        for number, choice in enumerate(choices):
            if any(choice.package.startswith(f"{outer.package}.") for outer in choices[:number]):
                known = self._choices(config_name, [*written, *added])
            text = choice.written(self._exists(choice, known, run_mode))
            (added if text.startswith("+") else written).append(text)
            self._note(choice, text)
        self._note_top(written)
        return [*written, *added]  # those that are added last, to be merged over the stage that they belong to

    def _exists(self, choice: Choice, known: Choices, run_mode: RunMode) -> bool:
        exists = choice.key in known
        if choice.group != "stage" or run_mode == RunMode.MULTIRUN or not choice.package.startswith("pipeline."):
            return exists
        name, value = choice.package, choice.value
        if exists and choice.sign == "+":
            raise ConfigError(f"+{name}={value}: there is a {name} already; replace it with {name}={value}")
        if not exists and choice.sign != "+":
            raise ConfigError(f"{name}={value}: there is no {name} to replace; add it with +{name}={value}")
        return exists

    def _note(self, choice: Choice, text: str) -> None:
        parsed = parse([text])[0]
        if not parsed.is_sweep_override():
            self._selected[choice.key] = str(parsed.value())
            if parsed.is_add():
                self._added.append(choice.key)

    def _note_top(self, written: Sequence[str]) -> None:
        for parsed in parse(written):
            if parsed.key_or_group in self.top and not parsed.is_sweep_override() and not parsed.is_delete():
                self._selected[parsed.key_or_group] = str(parsed.value())

    def _choices(self, config_name: str | None, written: Sequence[str]) -> Choices:
        """The selected options of a configuration (what `hydra.runtime.choices` would hold), without composing it."""
        parsed, repo = self._parse_overrides_and_create_caching_repo(config_name, list(written))
        found = create_defaults_list(repo, config_name, parsed, prepend_hydra=True, skip_missing=True)
        return dict(found.overrides.known_choices)

    # ---- hooks of Hydra's loader ----------------------------------------------------------------------------------
    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str], *parsed_already: Any
    ) -> tuple[list[Any], CachingConfigRepository]:
        """Hydra's own method; the files that it loads are kept for the composition that follows.

        They are not kept longer, because a composed configuration shares nodes with the files that it was made of.
        """
        parsed, repo = super()._parse_overrides_and_create_caching_repo(config_name, overrides, *parsed_already)
        self._files.update(repo.cache)
        repo.cache, self._repository = self._files, repo
        return parsed, repo

    def _compose_config_from_defaults_list(self, defaults: list[Any], repo: Any) -> Tree:
        self._replaced = Replaced(defaults, repo, self._selected, self._added)
        return super()._compose_config_from_defaults_list(defaults, repo)

    def _load_single_config(self, default: Any, repo: Any) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        if self._replaced is not None and (pruned := self._replaced.prune(default, loaded.config)) is not loaded.config:
            loaded = dataclasses.replace(loaded, config=pruned)
        return loaded

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """The options of a group, also where it is named by a place: `pipeline.dpo.objective=glob(*)`."""
        group = Reader([], self.catalog, self.top)._group(group_name, {}) if "." in group_name else group_name
        found: list[str] = super().get_group_options(group, results_filter, config_name, overrides)
        return found
