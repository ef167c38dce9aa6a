"""What mkdocs calls: the reference's pages become files of the site, and part of its navigation."""

from __future__ import annotations

import pathlib
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from reference import pages

PAGES = pages()


def on_config(config: MkDocsConfig) -> None:
    config.nav = [*(config.nav or []), {"Reference": [f"reference/{page}" for page in PAGES]}]


def on_page_content(html: str, **_: object) -> str:
    # In a table `|` is written `\\|`, also in code, where GitHub drops the backslash and Python-Markdown doesn't.
    return html.replace("\\|", "|")


def on_files(files: Files, config: MkDocsConfig) -> None:
    for page, text in PAGES.items():
        files.append(File.generated(config, f"reference/{page}", content=text))
