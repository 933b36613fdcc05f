"""Read any file with one row per step: CSV, JSON Lines, a JSON document or Parquet."""

from __future__ import annotations

from entropilot.readers.formats.tables import csv_form, read_csv, read_document, read_jsonl, read_parquet
from entropilot.readers.gather import Gathered
from entropilot.readers.reader import Log, Source

FORMS = ("csv", "jsonl", "document", "parquet")


def read_table(log: Log, gathered: Gathered, run: str | None) -> Source:
    """Gather a table; its form is one of `FORMS`."""
    if log.form == "csv":
        form = csv_form(log.path)
        read_csv(log.path, gathered, form[0] if form else ",")
    else:
        {"jsonl": read_jsonl, "document": read_document, "parquet": read_parquet}[log.form](
            log.path, gathered
        )
    return Source([log.path], log.path.stem)
