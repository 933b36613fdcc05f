// Charts over steps: shared hover and zoom, smoothing, groups with bands, marks, ceilings, export.

const settings = { smoothing: 0, logScale: false, axis: "step", hidden: new Set() };
const AXES = { step: "step (update)", samples: "samples", time: "seconds of training" };
const charts = new Set(); // every chart on the page that follows the settings
let zoom = null; // [min, max] of x, shared
const T95 = [NaN, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086];
const t95 = (freedom) => (freedom < T95.length ? T95[freedom] : 1.96 + 2.4 / freedom); // two-sided 95 % of Student's t

// x values of a run on the chosen axis; null where the run does not have it.
function axisOf(run) {
  if (settings.axis === "step") return run.steps;
  const name = { samples: "samples/seen", time: "seconds/step" }[settings.axis];
  const column = run.metrics[name];
  if (!column) return settings.axis === "samples" && run.samples_a_step ? run.steps.map((step) => step * run.samples_a_step) : null;
  let total = 0;
  return settings.axis === "time" ? column.map((value) => (total += Number.isNaN(value) ? 0 : value)) : column;
}

// The measured points of a metric in a run, smoothed; a null stands where more than three usual distances lie between two.
function pointsOf(run, metric) {
  const column = run.metrics[metric];
  const axis = column && axisOf(run);
  if (!axis) return null;
  const x = [];
  const y = [];
  for (let i = 0; i < column.length; i++)
    if (!Number.isNaN(column[i])) {
      x.push(axis[i]);
      y.push(column[i]);
    }
  if (!x.length) return null;
  const distances = x.slice(1).map((value, i) => value - x[i]).sort((a, b) => a - b);
  const usual = distances.length ? distances[distances.length >> 1] : 1;
  let level = 0;
  let weight = 0;
  const keep = settings.smoothing;
  const points = { x: [], y: [] };
  for (let i = 0; i < x.length; i++) {
    if (i && x[i] - x[i - 1] > 3 * usual && x.length > 8) {
      points.x.push(x[i - 1] + usual);
      points.y.push(null);
      level = weight = 0;
    }
    level = keep * level + (1 - keep) * y[i];
    weight = keep * weight + (1 - keep);
    points.x.push(x[i]);
    points.y.push(level / weight);
  }
  return points;
}

function aligned(series) {
  const all = new Set();
  for (const one of series) for (const x of one.x) all.add(x);
  const x = Float64Array.from(all).sort();
  const place = new Map();
  x.forEach((value, i) => place.set(value, i));
  const columns = series.map((one) => {
    const column = new Array(x.length); // undefined: no value there, the line goes on; null: a gap
    one.x.forEach((value, i) => (column[place.get(value)] = one.y[i]));
    return column;
  });
  return [Array.from(x), columns];
}

// Mean over the runs of a group and half of its 95 % t interval, where at least two have a value.
function bandOf(members) {
  const [x, columns] = aligned(members);
  const band = { x: [], mean: [], low: [], high: [] };
  for (let i = 0; i < x.length; i++) {
    const values = columns.map((column) => column[i]).filter((value) => value !== undefined && value !== null);
    if (values.length < Math.min(2, members.length)) continue;
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const spread = values.length > 1 ? Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (values.length - 1)) : 0;
    const half = values.length > 1 ? (t95(values.length - 1) * spread) / Math.sqrt(values.length) : 0;
    band.x.push(x[i]);
    band.mean.push(mean);
    band.low.push(mean - half);
    band.high.push(mean + half);
  }
  return band;
}

// Unit and definition of a metric; a header may define several at once by a name that ends with a star.
function definitionOf(data, name) {
  const star = Object.keys(data.metrics).find((key) => key.endsWith("*") && name.startsWith(key.slice(0, -1)));
  return data.metrics[name] ?? data.metrics[star] ?? {};
}

class Chart {
  constructor(data, metric, { height = 260, onOpen = null, marks = true } = {}) {
    Object.assign(this, { data, metric, height, onOpen, marks });
    this.holder = make("div", { class: "plot" });
    const said = `${metric} over steps. Left and right arrow keys read values, Enter shows the rollouts of that step.`;
    this.element = make("div", { class: "chart", role: "group", tabindex: "0", "aria-label": said }, this.holder);
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.plot = null;
    charts.add(this);
  }

  lines() {
    const lines = [];
    const groups = new Map();
    this.data.runs.forEach((run, i) => {
      if (settings.hidden.has(run.group)) return;
      const points = pointsOf(run, this.metric);
      if (!points) return;
      const group = groups.get(run.group) ?? [];
      group.push({ ...points, run, i });
      groups.set(run.group, group);
    });
    for (const [name, members] of groups) {
      const at = this.data.groups.indexOf(name);
      const look = { colour: pick(COLOURS, at), dash: pick(DASHES, at) };
      for (const one of members)
        lines.push({ x: one.x, y: one.y, label: one.run.name, ...look, width: members.length > 1 ? 0.7 : 2, faint: members.length > 1 });
      if (members.length > 1) {
        const band = bandOf(members);
        lines.push({ x: band.x, y: band.low, edge: true, ...look }, { x: band.x, y: band.high, edge: true, ...look });
        lines.push({ x: band.x, y: band.mean, label: `${name}: mean of ${members.length} runs`, ...look, width: 2.5, band: true });
      }
    }
    return lines;
  }

  draw() {
    const lines = this.lines();
    this.plot?.destroy();
    this.plot = null;
    if (!lines.length) {
      this.holder.replaceChildren(make("p", { class: "quiet" }, `No data: no shown run holds ${this.metric} on this axis.`));
      return;
    }
    this.holder.replaceChildren();
    const [x, columns] = aligned(lines);
    this.drawn = { lines, x, columns };
    const grid = { stroke: css("--line"), width: 1 };
    const axis = { stroke: css("--quiet"), grid, ticks: grid, font: "12px system-ui, sans-serif" };
    const bands = [];
    const series = [{ label: settings.axis }];
    lines.forEach((line, i) => {
      series.push({
        label: line.label ?? "",
        stroke: line.edge ? "transparent" : line.faint ? line.colour + "88" : line.colour,
        width: line.edge ? 0 : line.width,
        dash: line.dash,
        points: { show: !line.edge && line.x.length <= 40, size: 5 },
      });
      if (line.band) bands.push({ series: [i, i - 1], fill: line.colour + "2e" });
    });
    const unit = definitionOf(this.data, this.metric).unit ?? "";
    const options = {
      width: Math.max(200, this.holder.clientWidth),
      height: this.height,
      series,
      bands,
      legend: { show: false },
      scales: { x: { time: false, range: (_, min, max) => (min === max ? [min - 0.5, max + 0.5] : [min, max]) }, y: { distr: settings.logScale && positive(columns) ? 3 : 1, range: this.range(columns) } },
      axes: [{ ...axis, label: AXES[settings.axis], labelSize: 16, size: 34 }, { ...axis, size: 62, label: unit || null, labelSize: 18, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : shown(tick, 3))) }],
      cursor: { sync: { key: "steps", setSeries: false }, drag: { x: true, y: false } },
      hooks: {
        setCursor: [(plot) => this.hover(plot)],
        setScale: [(plot, key) => key === "x" && this.zoomed(plot)],
        draw: [(plot) => this.decorate(plot)],
      },
    };
    this.plot = new uPlot(options, [x, ...columns], this.holder);
    if (zoom) this.plot.setScale("x", { min: zoom[0], max: zoom[1] });
    this.plot.over.addEventListener("click", () => this.open());
  }

  // The ceiling and its interval belong on the chart, where they are near enough to leave the data visible.
  range(columns) {
    let low = Infinity;
    let high = -Infinity;
    for (const column of columns)
      for (const value of column)
        if (value !== undefined && value !== null) {
          if (value < low) low = value;
          if (value > high) high = value;
        }
    for (const { value } of this.levels()) {
      const size = high - low || 1;
      if (value < high + size && value > low - size) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    if (settings.logScale && low > 0) return [low * 0.9, high * 1.1];
    const space = 0.06 * (high - low) || Math.abs(high) * 0.1 || 0.1;
    return [low >= 0 && low - space < 0 ? 0 : low - space, high + space];
  }

  levels() {
    if (this.data.runs.length > 1) return [];
    const law = this.data.runs[0].law;
    return law && law.performance === this.metric && law.ceiling !== null ? [{ value: law.ceiling, low: law.low, high: law.high }] : [];
  }

  decorate(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    for (const { value, low, high } of this.levels()) {
      const y = plot.valToPos(value, "y", true);
      if (low !== null && high !== null) {
        ctx.fillStyle = css("--mark") + "22";
        const top = plot.valToPos(high, "y", true);
        ctx.fillRect(bbox.left, top, bbox.width, plot.valToPos(low, "y", true) - top);
      }
      ctx.strokeStyle = css("--mark");
      ctx.setLineDash([6 * ratio, 4 * ratio]);
      line(ctx, bbox.left, y, bbox.left + bbox.width, y);
      ctx.fillStyle = css("--text");
      ctx.fillText(`ceiling ${shown(value, 3)}`, bbox.left + 8 * ratio, y - bbox.top < 18 * ratio ? y + 14 * ratio : y - 5 * ratio);
    }
    if (settings.axis === "step" && this.data.runs.length === 1) this.fan(plot, ctx);
    if (this.marks && settings.axis === "step")
      this.data.findings.forEach((finding, i) => {
        if (finding.step === null || settings.hidden.has(this.data.runs[finding.run].group)) return;
        const x = plot.valToPos(finding.step, "x", true);
        ctx.strokeStyle = css("--warn");
        ctx.setLineDash([2 * ratio, 3 * ratio]);
        line(ctx, x, bbox.top, x, bbox.top + bbox.height);
        ctx.fillStyle = css("--warn");
        ctx.fillText(String(i + 1), x + 3 * ratio, bbox.top + 12 * ratio);
      });
    ctx.restore();
  }

  fan(plot, ctx) {
    const forecast = this.data.runs[0].forecast?.[this.metric];
    if (!forecast) return;
    const { bbox } = plot;
    const from = plot.valToPos(forecast.from, "x", true);
    const to = plot.valToPos(forecast.to, "x", true);
    const y = (value) => plot.valToPos(value, "y", true);
    ctx.fillStyle = css("--mark") + "22";
    ctx.beginPath();
    ctx.moveTo(from, y(forecast.start));
    ctx.lineTo(to, y(forecast.high));
    ctx.lineTo(to, y(forecast.low));
    ctx.closePath();
    ctx.fill();
    ctx.strokeStyle = css("--mark");
    ctx.setLineDash([]);
    line(ctx, from, y(forecast.start), to, y(forecast.value));
    line(ctx, from, bbox.top, from, bbox.top + bbox.height);
  }

  hover(plot) {
    const { idx } = plot.cursor;
    if (idx === null || idx === undefined || !this.drawn || plot.cursor.event === null) return;
    this.at = idx;
    const x = this.drawn.x[idx];
    const values = [];
    this.drawn.lines.forEach((one, i) => {
      const value = this.drawn.columns[i][idx];
      if (!one.edge && value !== undefined && value !== null) values.push(`${one.label} ${shown(value)}`);
    });
    if (values.length) readout(`${this.metric}, ${settings.axis} ${shown(x, 8)}: ${values.slice(0, 8).join(" · ")}${values.length > 8 ? " …" : ""}`);
  }

  zoomed(plot) {
    const { min, max } = plot.scales.x;
    if (Chart.syncing || min === null || (zoom && zoom[0] === min && zoom[1] === max)) return;
    const { x } = this.drawn;
    zoom = min <= x[0] && max >= x[x.length - 1] ? null : [min, max];
    Chart.syncing = true;
    for (const other of charts)
      if (other !== this && other.plot) {
        const own = other.drawn.x;
        other.plot.setScale("x", zoom ? { min, max } : { min: own[0], max: own[own.length - 1] });
      }
    Chart.syncing = false;
    document.getElementById("unzoom").hidden = zoom === null;
  }

  key(event) {
    if (!this.plot || event.target !== this.element) return;
    const last = this.drawn.x.length - 1;
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Enter") this.open();
    else if (move !== undefined) {
      const from = this.at ?? (move > 0 ? -1 : last + 1);
      this.at = Math.min(last, Math.max(0, from + move));
      const left = this.plot.valToPos(this.drawn.x[this.at], "x");
      const here = this.at;
      this.plot.setCursor({ left, top: this.height / 3 });
      this.at = here;
      this.hover({ cursor: { idx: here } });
    } else return;
    event.preventDefault();
  }

  open() {
    if (this.onOpen && this.at !== undefined && settings.axis === "step") this.onOpen(this.drawn.x[this.at]);
  }

  svg() {
    const { lines, x, columns } = this.drawn;
    const [width, height, left, bottom, top] = [640, 320, 70, 40, 24];
    const [low, high] = this.range(columns);
    const first = zoom ? zoom[0] : x[0];
    const last = zoom ? zoom[1] : x[x.length - 1];
    const px = (value) => left + ((value - first) / (last - first || 1)) * (width - left - 12);
    const scale = settings.logScale && low > 0 ? Math.log : (value) => value;
    const py = (value) => height - bottom - ((scale(value) - scale(low)) / (scale(high) - scale(low) || 1)) * (height - bottom - top);
    const parts = [`<text x="${left}" y="16">${escapeXml(this.metric)}</text>`];
    for (let i = 0; i <= 4; i++) {
      const value = low + ((high - low) * i) / 4;
      const step = first + ((last - first) * i) / 4;
      parts.push(`<line x1="${left}" x2="${width - 12}" y1="${py(value)}" y2="${py(value)}" stroke="#ddd"/>`);
      parts.push(`<text x="${left - 6}" y="${py(value) + 4}" text-anchor="end">${shown(value, 3)}</text>`);
      parts.push(`<text x="${px(step)}" y="${height - bottom + 16}" text-anchor="middle">${shown(step, 5)}</text>`);
    }
    parts.push(`<text x="${(left + width) / 2}" y="${height - 6}" text-anchor="middle">${settings.axis}</text>`);
    lines.forEach((one, i) => {
      if (one.edge) return;
      let path = "";
      let pen = "M";
      columns[i].forEach((value, at) => {
        if (value === null) pen = "M";
        if (value === undefined || value === null || x[at] < first || x[at] > last) return;
        path += `${pen}${px(x[at]).toFixed(1)} ${py(value).toFixed(1)}`;
        pen = "L";
      });
      if (one.band) {
        const low = columns[i - 2];
        const high = columns[i - 1];
        const forth = x.map((v, at) => (high[at] === undefined ? "" : `${px(v).toFixed(1)},${py(high[at]).toFixed(1)}`)).filter(Boolean);
        const back = x.map((v, at) => (low[at] === undefined ? "" : `${px(v).toFixed(1)},${py(low[at]).toFixed(1)}`)).filter(Boolean).reverse();
        parts.push(`<polygon points="${forth.concat(back).join(" ")}" fill="${one.colour}" fill-opacity="0.18"/>`);
      }
      const dash = one.dash.length ? ` stroke-dasharray="${one.dash.join(" ")}"` : "";
      parts.push(`<path d="${path}" fill="none" stroke="${one.colour}" stroke-width="${one.width}"${dash}><title>${escapeXml(one.label)}</title></path>`);
    });
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>${parts.join("")}</svg>`;
  }

  csv() {
    const { lines, x, columns } = this.drawn;
    const shownLines = lines.map((one, i) => [one, columns[i]]).filter(([one]) => !one.edge);
    // A leading = + - @ would be a formula in a spreadsheet.
    const cell = (text) => `"${String(text).replace(/^[=+\-@]/, "'$&").replaceAll('"', '""')}"`;
    const head = [settings.axis, ...shownLines.map(([one]) => cell(one.label))].join(",");
    return [head, ...x.map((value, i) => [value, ...shownLines.map(([, column]) => column[i] ?? "")].join(","))].join("\n") + "\n";
  }

  exports() {
    const file = this.metric.replace(/[^\w.-]+/g, "_");
    const save = (kind) => () => {
      if (!this.plot) this.draw(); // a chart of the metrics that was never in view
      if (!this.plot) return;
      if (kind === "svg") download(`${file}.svg`, new Blob([this.svg()], { type: "image/svg+xml" }));
      else if (kind === "csv") download(`${file}.csv`, new Blob([this.csv()], { type: "text/csv" }));
      else this.plot.ctx.canvas.toBlob((blob) => download(`${file}.png`, blob));
    };
    const button = (kind) => make("button", { type: "button", "aria-label": `Save ${this.metric} as ${kind.toUpperCase()}`, onclick: save(kind) }, kind.toUpperCase());
    return make("div", { class: "exports" }, button("png"), button("svg"), button("csv"));
  }
}

function positive(columns) {
  return columns.every((column) => column.every((value) => value === undefined || value === null || value > 0));
}

function line(ctx, x1, y1, x2, y2) {
  ctx.beginPath();
  ctx.moveTo(x1, y1);
  ctx.lineTo(x2, y2);
  ctx.stroke();
}

const redraw = debounced(() => {
  for (const chart of charts) if (chart.visible !== false) chart.draw();
}, 30);

function chartCard(data, metric, heading, caption, options) {
  const chart = new Chart(data, metric, options);
  const card = make("figure", {}, make("h3", {}, heading), make("figcaption", {}, caption), chart.element, chart.exports());
  return { card, chart };
}
