"""The comments of args.yaml, which are the help of the keys: `python -m extras.tools.comments` writes them anew."""

import re

from utils.settings.config import FILE
from utils.settings.sections import KEYS

LINE = re.compile(r"  (\w+): [^#]*\S(?= *# )")  # of a key, without its comment
COLUMN = 29  # in which the comments begin, behind a shorter line


def commented(text: str) -> str:
    """Return args.yaml, whose sections stand before its presets, with the help of each key in its line."""
    sections, presets, rest = text.partition("\npresets:\n")
    lines = []
    for line in sections.splitlines():
        found = LINE.match(line)
        lines.append(f"{found[0]:<{COLUMN}} # {KEYS[found[1]].help}" if found else line)
    return "\n".join(lines) + presets + rest


if __name__ == "__main__":
    FILE.write_text(commented(FILE.read_text(encoding="utf-8")), encoding="utf-8")
