"""Help texts in the width of the terminal."""

import re
import shutil
import textwrap
from typing import Final

NARROWEST: Final = 40
LONGEST: Final = 120
_GAP: Final = re.compile(r"(?<=\S) {2,}(?=\S)")


def fitted(text: str, width: int | None = None) -> str:
    """A text whose lines fit: a longer one continues below its last column, or below its own beginning.

    Columns are parted by two spaces or more. Lines that follow each other without indentation are one paragraph.
    """
    room = min(LONGEST, max(NARROWEST, width or shutil.get_terminal_size().columns))
    joined = re.sub(r"(?<=\S)\n(?=\S)", " ", text)  # paragraphs, whose lines are not indented
    return "\n".join(part for line in joined.split("\n") for part in _line(line, room))


def _line(line: str, room: int) -> list[str]:
    if len(line) <= room:
        return [line]
    start = " " * (len(line) - len(line.lstrip()))
    gaps = list(_GAP.finditer(line))
    if not gaps:
        below = start if start == "" else f"{start}    "
        return textwrap.wrap(line, room, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)
    first, second = line[: gaps[0].start()], line[gaps[0].end() :]
    column = gaps[0].end()
    if column > room - 24:  # a long command: what it does stands below it
        inner = f"{start}    "
        return [first, *textwrap.wrap(second, room, initial_indent=inner, subsequent_indent=inner)]
    words = textwrap.wrap(second, room - column, break_long_words=False, break_on_hyphens=False)
    return [f"{first:<{column}}{words[0]}", *(f"{'':<{column}}{more}" for more in words[1:])]
