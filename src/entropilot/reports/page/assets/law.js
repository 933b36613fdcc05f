// Performance against entropy: the fit on a prefix of the run, chosen by a slider, against what came after.

function fitLaw(h, r, count) {
  // Least squares of R on exp(H): R = -a exp(H) + b.
  let [sx, sy, sxx, sxy] = [0, 0, 0, 0];
  for (let i = 0; i < count; i++) {
    const x = Math.exp(h[i]);
    sx += x;
    sy += r[i];
    sxx += x * x;
    sxy += x * r[i];
  }
  const spread = count * sxx - sx * sx;
  if (count < 3 || Math.abs(spread) < 1e-12) return null;
  const slope = (count * sxy - sx * sy) / spread;
  return { a: -slope, b: (sy - slope * sx) / count };
}

function lawView(data, holder) {
  const runs = data.runs.filter((run) => run.points && run.points.h.length >= 3);
  if (!runs.length) {
    holder.replaceChildren(make("p", { class: "quiet" }, "No data: no run holds entropy and a performance measured at the same steps, three times or more."));
    return;
  }
  const slider = make("input", { type: "range", id: "prefix", min: 5, max: 100, value: 100, step: 1 });
  const said = make("output", { for: "prefix" });
  const plotHolder = make("div", { class: "plot" });
  const table = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Fit on the first part of each run" });
  holder.replaceChildren(
    make("p", { class: "field" }, make("label", { for: "prefix" }, "Fit the first "), slider, said),
    make("div", { class: "chart", role: "group", tabindex: "0", "aria-label": "Performance against entropy, with the fitted curve of each run" }, plotHolder),
    table,
  );
  let plot = null;

  const draw = () => {
    const share = slider.value / 100;
    said.textContent = ` ${slider.value} % of the measurements`;
    const series = [];
    const rows = [];
    let top = 0;
    for (const run of runs) for (const h of run.points.h) top = Math.max(top, h);
    for (const run of runs) {
      if (settings.hidden.has(run.group)) continue;
      const { h, r } = run.points;
      const n = h.length;
      const used = Math.max(3, Math.round(share * n));
      const colour = pick(COLOURS, data.groups.indexOf(run.group));
      const sorted = (from, to) => {
        const order = [];
        for (let i = from; i < to; i++) order.push(i);
        order.sort((i, j) => h[i] - h[j]);
        const points = new Map();
        for (const i of order) points.set(h[i], r[i]);
        return { x: [...points.keys()], y: [...points.values()] };
      };
      series.push({ ...sorted(0, used), colour, filled: true, dots: true });
      if (used < n) series.push({ ...sorted(used, n), colour, filled: false, dots: true });
      const fit = fitLaw(h, r, used);
      if (fit) {
        const grid = Array.from({ length: 61 }, (_, i) => (top * i) / 60);
        series.push({ x: grid, y: grid.map((x) => fit.b - fit.a * Math.exp(x)), colour, dots: false });
      }
      const end = fit && fit.b - fit.a * Math.exp(h[n - 1]);
      rows.push([run.name, run.law ? run.law.words : "–", used, fit && fit.a, fit && fit.b, fit && fit.b - fit.a, used < n ? end : null, r[n - 1], used < n && fit ? end - r[n - 1] : null, used < n ? r[used - 1] - r[n - 1] : null]);
    }
    plot?.destroy();
    plotHolder.replaceChildren();
    const [x, columns] = aligned(series);
    const grid = { stroke: css("--line"), width: 1 };
    const axis = { stroke: css("--quiet"), grid, ticks: grid, font: "12px system-ui, sans-serif" };
    const measured = runs.flatMap((run) => Array.from(run.points.r));
    const [low, high] = [Math.min(...measured), Math.max(...measured)];
    const space = 0.12 * (high - low) || 0.1;
    plot = new uPlot(
      {
        width: Math.max(200, plotHolder.clientWidth),
        height: 340,
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        scales: { x: { time: false, range: [0, top * 1.04 || 1] }, y: { range: [low - space, high + space] } },
        axes: [{ ...axis, label: "entropy H, nats", labelSize: 18 }, { ...axis, size: 62, label: `R: ${[...new Set(runs.map((run) => run.law?.words))].filter(Boolean).join(", ")}`, labelSize: 18 }],
        series: [
          {},
          ...series.map((one) => ({
            stroke: one.colour,
            width: one.dots ? 1.5 : 2,
            paths: one.dots ? () => null : undefined,
            points: { show: one.dots, size: 7, fill: one.filled ? one.colour : css("--card"), stroke: one.colour },
          })),
        ],
      },
      [x, ...columns],
      plotHolder,
    );
    const heads = ["run", "R is", "points fitted", "a", "b", "ceiling", "predicted last", "last point", "error", "error of no change"];
    const body = rows.map((cells) => make("tr", {}, ...cells.map((cell, i) => make(i ? "td" : "th", i ? { class: i === 1 ? "text" : "" } : { scope: "row" }, typeof cell === "string" ? cell : shown(cell, 3)))));
    table.replaceChildren(make("table", {}, make("caption", {}, "R = −a·exp(H) + b, fitted. Predicted last: the curve at the entropy of the last point, if only a part is fitted. Error: predicted less measured; of no change: the last fitted point less measured."), make("thead", {}, make("tr", {}, ...heads.map((head, i) => make("th", { scope: "col", class: i < 2 ? "text" : "" }, head)))), make("tbody", {}, ...body)));
  };
  slider.addEventListener("input", draw);
  const chart = { visible: true, draw };
  charts.add(chart);
  draw();
}
