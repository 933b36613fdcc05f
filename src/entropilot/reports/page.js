(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
  const hidden = new Set();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Plotly draws in SVG with colours of its own: hand it the page's, again when the reader changes the scheme.
  const draw = () => {
    const line = colour("--line");
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, title: { standoff: 8 } };
    for (const [id, figure] of Object.entries(figures)) {
      const themed = (own) => ({ ...own, ...axis, title: { ...own.title, ...axis.title } });
      const layout = {
        ...structuredClone(figure.layout),
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, sans-serif", size: 13, color: colour("--text") },
        hoverlabel: { ...figure.layout.hoverlabel, bgcolor: colour("--card"), bordercolor: line, font: { color: colour("--text") } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--quiet"), activecolor: colour("--text") },
        xaxis: themed(figure.layout.xaxis),
        yaxis: themed(figure.layout.yaxis),
      };
      const data = figure.data.map((trace) => ({ ...structuredClone(trace), visible: !hidden.has(trace.legendgroup) }));
      Plotly.react(id, data, layout, config);
    }
  };
  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  // One legend for all charts: a button shows or hides its run in each.
  for (const button of document.querySelectorAll("button[data-run]")) {
    button.addEventListener("click", () => {
      const run = button.dataset.run;
      if (!hidden.delete(run)) hidden.add(run);
      button.setAttribute("aria-pressed", String(!hidden.has(run)));
      draw();
    });
  }

  // Tooltips need a pointer that hovers; a tap shows the same numbers at the foot of the page.
  const readout = document.getElementById("readout");
  document.addEventListener("click", (event) => {
    const token = event.target.closest(".tokens [title]");
    readout.textContent = token ? `“${token.textContent.trim()}”: ${token.title}` : "";
  });
})();
