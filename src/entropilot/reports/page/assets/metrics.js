// All recorded metrics: searchable, each with unit and definition; charts are drawn when they come into view.

function metricsView(data, holder, onOpen) {
  const names = [...new Set(data.runs.flatMap((run) => Object.keys(run.metrics)))].sort();
  if (!names.length) {
    holder.replaceChildren(make("p", { class: "quiet" }, "No data: no run holds a metric."));
    return;
  }
  const search = make("input", { type: "search", id: "metric-search" });
  const status = make("p", { class: "quiet", role: "status" });
  const grid = make("div", { class: "charts small" });
  holder.replaceChildren(make("p", { class: "field" }, make("label", { for: "metric-search" }, "search metrics"), search), status, grid);
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const chart = entry.target.chart;
      const first = entry.isIntersecting && !chart.visible;
      chart.visible = entry.isIntersecting;
      if (first) chart.draw();
    }
  }, { rootMargin: "200px" });
  const cards = new Map();
  const draw = () => {
    const words = search.value.trim().toLowerCase();
    const matching = names.filter((name) => `${name} ${definitionOf(data, name).definition ?? ""}`.toLowerCase().includes(words));
    status.textContent = `${matching.length} of ${names.length} metrics`;
    for (const name of matching)
      if (!cards.has(name)) {
        const said = definitionOf(data, name);
        const caption = [said.unit, said.definition].filter(Boolean).join(": ") || "definition not recorded";
        const { card, chart } = chartCard(data, name, name, caption, { height: 150, onOpen, marks: false });
        chart.visible = false;
        card.chart = chart;
        watcher.observe(card);
        cards.set(name, card);
      }
    grid.replaceChildren(...matching.map((name) => cards.get(name)));
  };
  search.addEventListener("input", debounced(draw));
  draw();
}
