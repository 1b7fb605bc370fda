"""The documentation's settings: ``make docs`` builds it, ``tests/test_docs.py`` runs what stands in it."""

from importlib.util import find_spec

from trax import __version__

project = "trax"
copyright = "trax contributors"
version = release = __version__

# No intersphinx, which would need a network. No sphinx.ext.doctest: its builder would leave the examples' stores in the
# working directory; tests/test_docs.py runs each page in an empty one.
extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

html_theme = "furo" if find_spec("furo") else "alabaster"
html_title = f"trax {version}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the signatures would be three lines long; the text says what goes in and what comes out
python_maximum_signature_line_length = 88
