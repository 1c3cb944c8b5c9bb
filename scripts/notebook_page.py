"""The quickstart notebook as a page of the documentation: a hook that mkdocs.yml names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

import kcost

NOTEBOOK, PAGE = "quickstart.ipynb", "quickstart.md"
RUN = Path(__file__).parents[1] / "docs" / "runs" / "digits-cnn"
TAG = "stored-verdict"
"""Of the cell under which the page shows the verdict of the measured run that lies in the repository."""

BELOW_THE_TITLE = f"""[Load this page as a notebook]({NOTEBOOK}){{: download }}. Its cells are stored without
results. The one result that is shown here is of the run in `docs/runs/digits-cnn`, which was measured longer."""


def on_files(files: Files, config: Any) -> Files:
    """Adds the page; the notebook itself stays beside it, to be loaded."""
    notebook = files.get_file_from_path(NOTEBOOK)
    assert notebook is not None
    assert notebook.abs_src_path is not None
    files.append(File.generated(config, PAGE, content=page(Path(notebook.abs_src_path))))
    return files


def on_page_markdown(markdown: str, page: Any, **others: Any) -> str:
    """Lets links to the notebook lead to its page."""
    return markdown if page.file.src_uri == PAGE else markdown.replace(f"]({NOTEBOOK})", f"]({PAGE})")


def page(notebook: Path) -> str:
    """A notebook in Markdown, with a link to itself, and with the stored verdict in the place of a measured one."""
    document = nbformat.read(notebook, as_version=4)
    for cell in document.cells:
        if TAG in cell.metadata.get("tags", ()):
            shown = {"text/html": kcost.estimate_cost(RUN)._repr_html_()}
            cell.outputs = [nbformat.v4.new_output("display_data", data=shown)]
    text, _ = MarkdownExporter().from_notebook_node(document)
    title, rest = text.lstrip().split("\n", 1)
    return f"{title}\n\n{BELOW_THE_TITLE}\n{rest}"
