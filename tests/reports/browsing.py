"""Runs and helpers of the tests in a real browser."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from entropilot.records import Run, RunWriter, read_run, write_tokens

HOSTILE = [
    "<script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "</p><svg onload=window.hacked=1>",
    "javascript:window.hacked=1", "'\"><iframe srcdoc='<script>parent.hacked=1</script>'>", "${window.hacked=1}",
    "`;window.hacked=1;`", "{{constructor.constructor('window.hacked=1')()}}", "\\u003cscript\\u003e", "&lt;script&gt;",
    "<style>*{display:none}</style>", "<base href='http://evil.example/'>", "<meta http-equiv=refresh content=0>",
    "<form action=http://evil.example><button>", "<a href=javascript:window.hacked=1>x</a>", "<!--", "-->", "]]>",
    "<template><script>window.hacked=1</script></template>", "<math><mtext><script>window.hacked=1</script>",
    "\u202eevil\u202c", "\x1b[31mred\x1b[0m", "\x00", "a" * 3000, "𝕳𝖎 👩‍👩‍👧 ñ", "null", "undefined", "__proto__",
    "constructor", "<object data=x>", "<link rel=stylesheet href=http://evil.example>", "%3Cscript%3E", "\n\n\n", "",
]  # fmt: skip


def rich_run(folder: Path, name: str, method: str, seed: int = 0, steps: int = 60) -> Run:
    header = {
        "name": name,
        "recipe": {"method": method, "seed": seed, "grpo": {"max_steps": steps}},
        "metrics": {"entropy/policy_T1": {"unit": "nats", "definition": "policy entropy"}},
    }
    writer = RunWriter(folder, header)
    for step in range(1, steps + 1):
        h = 1.2 * math.exp(-step / 20) + 0.05 + 0.01 * seed
        row = {
            "entropy/policy_T1": h,
            "reward/mean": 0.9 - 0.2 * h,
            "seconds/step": 0.5,
            "semantic/entropy": h,
        }
        if step % 4 == 1:
            row["validation/accuracy"] = 0.95 - 0.25 * (math.exp(h) - 1) + 0.01 * (-1) ** step
        writer.row(step, row | {"loss/very long <b>name</b>": 1.0 / step})
    writer.end("finished")
    writer.close()
    for step in (1, 20, 40, 60):
        rows = 8
        words = [["The", " sum", " is", "\n", f" {step + row}", "."] for row in range(rows)]
        columns = {
            "step": [step] * rows,
            "prompt": ["What is 1 + 2?"] * 4 + ["What is 3 + 4?"] * 4,
            "prompt_id": ["p1"] * 4 + ["p2"] * 4,
            "role": ["held_out"] * 4 + ["training"] * 4,
            "truncated": [row == 3 for row in range(rows)],
            "reward": [float(row % 2) for row in range(rows)],
            "cluster": [row % 3 for row in range(rows)],
            "answer": [str(row % 3) for row in range(rows)],
            "tokens": words,
            "logp": [[-0.1 * (t + 1) for t in range(6)]] * rows,
            "entropy": [[0.02, 0.3, 0.8, 1.5, 2.4, 0.0]] * rows,
            "advantage": [[1.0 if row % 2 else -1.0] * 6 for row in range(rows)],
            "covariance": [[0.1 * t * (1 if row % 2 else -1) for t in range(6)] for row in range(rows)],
            "drift": [[0.0, 0.1, -0.1, 0.0, 0.2, 0.0]] * rows,
            "chosen": [[t == 4 and row == 5 for t in range(6)] for row in range(rows)],
        }
        columns["completion"] = ["".join(row) for row in words]
        write_tokens(folder, step, columns)
    return read_run(folder)


def wait(page: Any, condition: str, timeout: float = 30_000) -> None:
    """Wait until JavaScript says so; playwright's own way evaluates a string, which the page's policy forbids."""
    end = time.monotonic() + timeout / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"it did not happen: {condition}"
        page.wait_for_timeout(30)


def said(page: Any) -> str:
    return page.text_content("#readout")
