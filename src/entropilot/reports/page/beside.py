"""Serve the live page from the process that trains."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from entropilot.records import FILE_NAME, Run, read_run
from entropilot.reports.page.build import Options
from entropilot.reports.page.serve import Live, make_server


class LivePage:
    """Serve the page of a training on a thread of this process; until the first row is there, an empty run.

    Args:
        folders: of the run, or of its stages in order; they need not exist yet.
        name: of the run.

    Attributes:
        address: to open in a browser.

    Raises:
        UserError: Jinja2 is missing.
    """

    def __init__(self, folders: Sequence[Path], name: str) -> None:
        def opened() -> list[Run]:
            begun = [folder for folder in folders if _begun(folder)]
            return [read_run(folder) for folder in begun] or [Run(folders[0], {"name": name})]

        live = Live(opened, folders, Options(title=name), waits=True)
        self._server, self.address = make_server(live)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _begun(folder: Path) -> bool:
    """Whether a run's header is whole, which is so once its line has ended."""
    try:
        with (folder / FILE_NAME).open("rb") as file:
            return file.readline().endswith(b"\n")
    except OSError:
        return False
