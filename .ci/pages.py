"""Hook of mkdocs: README.md is the first page, and files outside docs/ that pages link to are part of the site."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md and linked files under their path in the repository, and let all links lead there."""
    files.append(File.generated(config, "README.md", content=(ROOT / "README.md").read_text(encoding="utf-8")))
    for page in files.documentation_pages():
        page.content_string = re.sub(r"(?<=\]\()(\.\./|docs/)", "", page.content_string)
        for name in re.findall(r"\]\(([^)#\s]+)", page.content_string):
            if (ROOT / name).is_file() and name not in files.src_uris:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files
