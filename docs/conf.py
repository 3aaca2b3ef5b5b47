"""Settings of the documentation: `make docs` builds it, warnings are errors."""

from importlib.metadata import version as installed_version

project = "comet-rec"
author = "The comet-rec developers"
copyright = author
release = version = installed_version("comet-rec")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings state types and shapes
autodoc_class_signature = "mixed"

html_theme = "furo"
html_title = "comet-rec"
html_copy_source = False
