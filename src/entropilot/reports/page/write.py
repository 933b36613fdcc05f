"""Write the report of some runs to one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from entropilot.errors import UserError
from entropilot.files import check_output, written_whole
from entropilot.records import FILE_NAME, Run
from entropilot.reports.page.build import Options, render


def write_report(runs: Sequence[Run], out: str | Path, options: Options | None = None) -> Path:
    """Write the report of some runs to one HTML file, which replaces an older one as a whole; return its path.

    Raises:
        UserError: there is no run, Jinja2 is missing, or the file can't be written.
    """
    options = options or Options()
    if not runs and not options.evaluations:
        raise UserError("A report needs at least one run; give the folder that `entropilot train` wrote.")
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the report a file name, as {out / 'report.html'}.")
    # An older page is replaced, because it can be drawn again; any other file may be somebody's data.
    check_output(out, *(run.path / FILE_NAME for run in runs), force=out.suffix in (".html", ".htm") or None)
    text = render(runs, options)
    with written_whole(out, "--out") as file:
        file.write(text.encode("utf-8", "replace"))
    return out
