"""The command. A bare word first is a command's name; everything else is Hydra's.

`alignlab experiment=lifecycle pipeline.dpo.objective.beta=0.05` runs an experiment, `alignlab -m ...` a sweep,
`alignlab plan ...` a command. Heavy packages are imported only by the commands that need them.

An error that the user can correct is one message and exit code 1 (`AlignlabError`, Hydra's and OmegaConf's own errors);
a bug keeps its traceback. SIGTERM and Ctrl-C keep finished work, mark the run `preempted` and exit with 143 and 130.
"""

import os
import sys
from collections.abc import Sequence

from alignlab import __version__, launched
from alignlab.errors import AlignlabError, Preempted
from alignlab.sanitize import printable, redact_logs, redact_override, redact_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code.

    Args:
        arguments: without the program's name; None takes those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    # PyTorch's threads spin while they wait for work. With another busy process on the machine, spinning for long made
    # a step ten times as long; on an idle machine, no spinning made it a third longer, as a thread that sleeps wakes
    # slowly.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    redact_logs()
    try:
        return _placed(list(arguments))
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


def _placed(arguments: list[str]) -> int:
    """Run the command, or help the process that does, where a launcher has started several."""
    own = launched.place()
    if own is None:
        return _dispatch(arguments)
    # Else torch, where it waits for another machine, would print pages of addresses between our lines.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    if own.rank > 0:
        from alignlab.pipeline.follower import follow

        code = follow(own)
        sys.stderr.flush()
        os._exit(code)  # taking the interpreter down takes seconds, for which the first process would wait
    from alignlab.pipeline.team import led

    with led(own) as leader:
        try:
            leader.code = _dispatch(arguments)
        except Preempted as error:
            leader.code = error.code
            raise
        return leader.code


def _dispatch(arguments: list[str]) -> int:
    from alignlab.cli import commands
    from alignlab.cli.help import print_help, print_version

    first = arguments[0] if arguments else "--help"
    if _is_word(first):
        commands.check(first)
        _announce(arguments)
        return commands.run(first, arguments[1:])
    if first == "--version":
        return print_version()
    if "--help" in [first, *arguments] or "-h" in arguments:
        return print_help()
    _announce(arguments)
    from alignlab.cli import launch

    return launch.run(arguments)


def _is_word(text: str) -> bool:
    return bool(text) and "=" not in text and text[0] not in "-+~"


def _announce(arguments: Sequence[str]) -> None:
    """Print what was asked for at once, since the answer takes seconds: importing torch alone takes two."""
    quiet = ("--json", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help", "--help", "-h")
    if arguments[0] in ("plugins", "runs", "compare", "gc") or any(
        word.partition("=")[0] in quiet for word in arguments
    ):
        return
    words = printable(" ".join(redact_override(word) for word in arguments), limit=300)
    print(f"alignlab {__version__}: {words}", file=sys.stderr if arguments[0] == "chat" else sys.stdout, flush=True)


def _complain(error: object) -> None:
    print(f"alignlab: {printable(redact_text(str(error)))}", file=sys.stderr, flush=True)
