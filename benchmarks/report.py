"""Speed and size of the page: python benchmarks/report.py [--runs 10 --steps 2000 --completions 2000]

Makes runs with random rows and samples, writes their page, and opens it in headless Chromium (playwright and Chromium
as for `make test-browser`): first paint, the time until everything is drawn, a filter over all completions, scrolling.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from entropilot.records import Run, RunWriter, read_run, write_tokens
from entropilot.reports.page.build import Options
from entropilot.reports.page.write import write_report

FRAMES = 300
SCROLL = f"""async (name) => {{
    const box = document.querySelector(name); const times = [];
    for (let i = 0; i < {FRAMES}; i++) {{
        box.scrollTop += 400; const began = performance.now();
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        times.push(performance.now() - began);
    }}
    times.sort((a, b) => a - b); return times[Math.floor(0.95 * times.length)];
}}"""
TOKENS, METRICS, SAMPLES_A_RUN = 40, 30, 20


def make_run(folder: Path, seed: int, steps: int, completions: int) -> Run:
    rng = np.random.default_rng(seed)
    writer = RunWriter(
        folder, {"name": f"run {seed}", "recipe": {"method": "kl_cov" if seed % 2 else "none"}}
    )
    for step in range(1, steps + 1):
        h = 1.2 * np.exp(-step / 500) + 0.05 + 0.01 * rng.standard_normal()
        row = {"entropy/policy_T1": h, "reward/mean": 0.9 - 0.2 * h, "seconds/step": 1.0}
        if step % 5 == 1:
            row["validation/accuracy"] = 0.9 - 0.2 * np.exp(h) + 0.01 * rng.standard_normal()
        row |= {f"metric/{i}": float(rng.standard_normal()) for i in range(METRICS)}
        writer.row(step, row)
    writer.end("finished")
    writer.close()
    words = [f" word{i}" for i in range(5000)]
    rows = completions // SAMPLES_A_RUN
    for sample in range(SAMPLES_A_RUN):
        step = 1 + sample * steps // SAMPLES_A_RUN

        def numbers(scale: float, rows: int = rows) -> list[list[float]]:
            return (scale * rng.standard_normal((rows, TOKENS))).tolist()

        columns = {
            "step": [step] * rows,
            "prompt": [f"problem {i // 8}" for i in range(rows)],
            "prompt_id": [f"problem {i // 8}" for i in range(rows)],
            "reward": rng.integers(0, 2, rows).astype(float).tolist(),
            "tokens": [[words[i] for i in rng.zipf(1.3, TOKENS) % 5000] for _ in range(rows)],
            "entropy": np.abs(rng.standard_normal((rows, TOKENS))).tolist(),
            "logp": (-np.abs(rng.standard_normal((rows, TOKENS)))).tolist(),
            "covariance": numbers(0.3),
            "drift": numbers(0.05),
            "advantage": np.repeat(rng.standard_normal((rows, 1)), TOKENS, axis=1).tolist(),
            "chosen": (rng.random((rows, TOKENS)) < 0.002).tolist(),
        }
        columns["completion"] = ["".join(row) for row in columns["tokens"]]
        write_tokens(folder, step, columns)
    return read_run(folder)


def in_browser(page_file: Path) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        began = time.perf_counter()
        page.goto(page_file.as_uri(), wait_until="commit")
        while page.evaluate("document.documentElement.dataset.ready") != "true":
            page.wait_for_timeout(20)
        measured = {"drawn": time.perf_counter() - began}
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        measured["first paint"] = page.evaluate(paint) / 1000
        page.evaluate("page.rollouts.set('text', 'word77 ')")  # prepares the search
        measured["first search"] = page.evaluate("page.rollouts.seconds") / 1000
        times = []
        for key, value in (
            ("text", "word12"),
            ("text", ""),
            ("kind", "chosen"),
            ("kind", "wrong"),
            ("kind", "all"),
        ):
            page.evaluate(f"page.rollouts.set('{key}', '{value}')")
            times.append(page.evaluate("page.rollouts.seconds") / 1000)
        measured["filter, slowest"] = max(times)
        # Time on the thread's own clock: what a frame costs, however busy the machine is.
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

        def busy() -> float:
            metrics = devtools.send("Performance.getMetrics")["metrics"]
            return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

        before = busy()
        frame = page.evaluate(SCROLL, ".listbox") / 1000
        measured |= {"scroll, p95": frame, "CPU per frame": (busy() - before) / FRAMES}
        print(f"elements in list {page.locator('.rows *').count()}")
        page.set_content("<div class=listbox style='height:500px;overflow:auto'><p style='height:9e5px'>x")
        measured["empty page, p95"] = page.evaluate(SCROLL, ".listbox") / 1000
        browser.close()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--completions", type=int, default=2000)
    parser.add_argument("--no-browser", action="store_true")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [
            make_run(folder / str(i), i, settings.steps, settings.completions) for i in range(settings.runs)
        ]
        began, cpu = time.perf_counter(), time.process_time()
        out = write_report(runs, folder / "r.html", Options(group_by="method"))
        print(f"built            {time.perf_counter() - began:.2f} s, CPU {time.process_time() - cpu:.2f} s")
        print(f"size             {out.stat().st_size / 1e6:.1f} MB")
        if not settings.no_browser:
            for what, seconds in in_browser(out).items():
                print(f"{what:<17}{1000 * seconds:.1f} ms")
        print(f"load             {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
