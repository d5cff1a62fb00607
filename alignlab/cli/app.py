"""The command. A bare word first is a verb; everything else is Hydra's.

`alignlab experiment=lifecycle pipeline.dpo.objective.beta=0.05` runs an experiment, `alignlab -m ...` a sweep,
`alignlab plan ...` a verb. Nothing heavy is imported before something heavy is asked for.

What goes wrong is one message and exit code 1 when the user can mend it (`AlignlabError`, Hydra's and OmegaConf's own
errors), a traceback when it is a bug. SIGTERM and Ctrl-C keep what is done, mark the run `preempted`
and exit with 143 and 130.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alignlab.cli import import_stubs
from alignlab.errors import AlignlabError, Preempted, suggestion
from alignlab.sanitize import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code.

    Args:
        arguments: without the program's name; None takes those of the process.
    """
    if arguments is None:
        import_stubs.permit()
        arguments = sys.argv[1:]
    # PyTorch's threads spin while they wait for work. Beside another busy process, spinning for long made a step ten
    # times as long; on an idle machine, no spinning made it a third longer, as a thread that sleeps wakes slowly.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        return _dispatch(list(arguments))
    except Preempted as error:
        _complain(error)
        return error.code
    except AlignlabError as error:
        _complain(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `alignlab plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(arguments: list[str]) -> int:
    from alignlab.cli.commands import VERBS, run
    from alignlab.cli.help import print_help, print_version

    first = arguments[0] if arguments else "--help"
    if _is_word(first):
        if first not in VERBS:
            raise _unknown_verb(first, list(VERBS))
        return run(first, arguments[1:])
    if first == "--version":
        return print_version()
    if "--help" in [first, *arguments] or "-h" in arguments:
        return print_help()
    return _hydra(arguments)


def _is_word(text: str) -> bool:
    return bool(text) and "=" not in text and text[0] not in "-+~"


def _unknown_verb(word: str, verbs: list[str]) -> AlignlabError:
    return AlignlabError(
        f"{word!r} is no verb; there are {', '.join(verbs)}, and experiments are run by experiment=NAME "
        f"(alignlab --help lists them){suggestion(word, verbs)}"
    )


def _complain(error: object) -> None:
    print(f"alignlab: {printable(str(error))}", file=sys.stderr, flush=True)


# ---- Hydra -----------------------------------------------------------------------------------------------------------
def _hydra(arguments: list[str]) -> int:
    import hydra
    from hydra._internal.utils import get_args_parser

    from alignlab.cli import job
    from alignlab.cli.completion import handled
    from alignlab.config import compose, untrusted

    parsed = get_args_parser().parse_intermixed_args(arguments)
    if parsed.config_path or parsed.config_name:
        raise AlignlabError(
            "alignlab composes from its own root and takes neither --config-path nor --config-name; put your options "
            "into a folder and add that with --config-dir FOLDER"
        )
    folders = compose.config_folders(parsed.config_dir)
    if parsed.shell_completion:
        if handled(parsed.overrides):
            return 0
    else:
        overrides = compose.rewritten(parsed.overrides, folders)
        arguments = [a for a in arguments if a not in parsed.overrides] + overrides
        if parsed.cfg == "job" and not parsed.multirun:
            return _print_config(overrides, folders, bool(parsed.resolve), parsed.package)
    job.begin()
    run = hydra.main(version_base=compose.VERSION_BASE, config_path=None, config_name=compose.NAME)(job.task)
    try:
        with compose.composing():
            if not parsed.shell_completion:
                untrusted.check(overrides, folders, parsed.multirun)
            compose.register()
            _run(run, arguments)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return job.exit_code()


def _print_config(overrides: list[str], folders: list[Path], resolve: bool, package: str | None) -> int:
    """What `--cfg job` prints: the configuration, or a part of it, as a run would take it."""
    from omegaconf import OmegaConf

    from alignlab.config import compose, replaced

    with compose.hydra_session(folders):
        cfg, _ = compose.composed(overrides)
        cfg = replaced.drop_settings_of_replaced(cfg, overrides, folders)
    node = OmegaConf.select(cfg, package) if package else cfg
    print(OmegaConf.to_yaml(node, resolve=resolve) if OmegaConf.is_config(node) else node, end="")
    return 0


def _run(run: Callable[[], object], arguments: list[str]) -> None:
    """Let Hydra compose and run; where an override selects an option that nothing held so far, add it and try again."""
    from hydra.errors import HydraException

    from alignlab.config.overrides import appended

    try:
        with _as_typed(arguments):
            run()
    except HydraException as error:
        more = appended(str(error), arguments)
        if more is None:
            raise
        _run(run, more)


@contextmanager
def _as_typed(arguments: list[str]) -> Iterator[None]:
    """What Hydra reads from the process: its arguments, and that we want its errors as exceptions."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
