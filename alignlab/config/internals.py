"""Everything private of Hydra's that alignlab uses: a new version of Hydra is checked against this list.

Hydra has no public way to compose overrides as they are typed (`alignlab.config.loader`) or to run a task with a
loader of one's own (`alignlab.config.compose`). What is used works in 1.3 and in 1.4:

- `Hydra`: its `run`, `multirun` and the methods that print; they compose by `compose_config`, which is overridden.
- `ConfigLoaderImpl`: its `load_configuration`; overridden are `load_sweep_config` and three hooks, of which
  `_parse_overrides_and_create_caching_repo` takes one more argument in 1.4.
- `CachingConfigRepository`: its `cache`, by path.
- `ConfigRepository`, `FileConfigSource`, `Callbacks`: as they are.
- `create_defaults_list`: `overrides.known_choices` of its result.
- `create_config_search_path`, `get_args_parser`: as they are.
- `BasicSweeper`: its `split_arguments`.
"""

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser

__all__ = [
    "BasicSweeper",
    "CachingConfigRepository",
    "Callbacks",
    "ConfigLoaderImpl",
    "ConfigRepository",
    "FileConfigSource",
    "Hydra",
    "create_config_search_path",
    "create_defaults_list",
    "get_args_parser",
]
