"""Sphinx's settings: `make docs`. The pages are plain Markdown that a code host shows as well."""

from bagoftricks import __version__

project = "bagoftricks"
author = "the bagoftricks contributors"
copyright = "the bagoftricks contributors, Apache-2.0"  # noqa: A001  (Sphinx's name)
version = release = __version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
smartquotes = False  # would join the two hyphens of a flag

html_theme = "furo"
html_title = f"bagoftricks {version}"
html_show_sphinx = False
