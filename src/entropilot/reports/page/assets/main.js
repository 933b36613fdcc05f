// Put the page together.

async function main() {
  const live = document.documentElement.dataset.live === "true";
  let stamp = null;
  let bytes;
  if (live) {
    const answer = await fetch("data");
    stamp = answer.headers.get("etag");
    bytes = new Uint8Array(await answer.arrayBuffer());
  } else bytes = fromBase64(document.getElementById("data").textContent);
  const data = await unpack(bytes);
  build(data);
  document.documentElement.dataset.ready = "true";
  if (live) follow(stamp);
}

function build(data) {
  charts.clear();
  const colours = new Colours(data.rollouts);
  const rollouts = new Rollouts(data, colours);
  const onOpen = (step) => rollouts.show(step);
  legend(data);
  const drawn = [];
  for (const holder of document.querySelectorAll("[data-metric]")) {
    const { card, chart } = chartCard(data, holder.dataset.metric, holder.dataset.heading, holder.dataset.caption, { onOpen });
    holder.replaceChildren(card);
    drawn.push(chart);
  }
  for (const chart of drawn) chart.draw();
  lawView(data, document.getElementById("law-view"));
  rollouts.draw(document.getElementById("rollouts-view"));
  wordsView(data, document.getElementById("words-view"));
  compareView(data, colours, document.getElementById("compare-view"));
  metricsView(data, document.getElementById("metrics-view"), onOpen);
  window.page = { data, rollouts, charts, settings };
}

// One legend for all charts: a button shows or hides a group of runs.
function legend(data) {
  const holder = document.getElementById("legend");
  holder.replaceChildren();
  if (data.groups.length < 2) return;
  data.groups.forEach((group, i) => {
    const key = make("span", { class: "key", "aria-hidden": "true" }, pick(GLYPHS, i));
    key.style.color = pick(COLOURS, i);
    const button = make("button", { type: "button", "aria-pressed": String(!settings.hidden.has(group)) }, key, group);
    button.addEventListener("click", () => {
      if (!settings.hidden.delete(group)) settings.hidden.add(group);
      button.setAttribute("aria-pressed", String(!settings.hidden.has(group)));
      redraw();
    });
    holder.append(make("li", {}, button));
  });
}

function wire() {
  const smoothing = document.getElementById("smoothing");
  const said = document.querySelector("output[for=smoothing]");
  smoothing.addEventListener("input", () => {
    settings.smoothing = Number(smoothing.value);
    said.textContent = settings.smoothing ? settings.smoothing.toFixed(2) : "off";
    redraw();
  });
  document.getElementById("log-axis").addEventListener("change", (event) => {
    settings.logScale = event.target.checked;
    redraw();
  });
  document.getElementById("x-axis").addEventListener("change", (event) => {
    settings.axis = event.target.value;
    zoom = null;
    redraw();
  });
  const unzoom = document.getElementById("unzoom");
  unzoom.addEventListener("click", () => {
    zoom = null;
    unzoom.hidden = true;
    redraw();
  });
  for (const link of document.querySelectorAll("a[data-step]"))
    link.addEventListener("click", () => {
      for (const chart of charts)
        if (chart.plot && chart.marks) chart.plot.setCursor({ left: chart.plot.valToPos(Number(link.dataset.step), "x"), top: 20 });
    });
  window.addEventListener("resize", debounced(redraw, 150));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    for (const chart of charts) chart.draw();
  });
}

wire();
// After the first paint: the summary is there without this.
requestAnimationFrame(() => setTimeout(() => main().catch((error) => readout(`The charts could not be drawn: ${error.message}`))));
