"""Sphinx configuration: Markdown pages through MyST, API pages from docstrings."""

import bssim

release = bssim.__version__

project = "bssim"
author = "The bssim developers"
copyright = "2026, The bssim developers"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # generated pages start chapters at their own level

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
default_role = "code"
add_module_names = False

html_theme = "furo"
html_title = f"bssim {release}"
html_static_path: list[str] = []
exclude_patterns = ["_build"]
