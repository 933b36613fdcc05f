// A live page asks its server for new rows every two seconds; what the reader set is kept.

function follow(stamp) {
  const status = document.getElementById("live");
  let wait = 2000;
  const ask = async () => {
    try {
      const state = await (await fetch("state")).json();
      if (state.stamp && state.stamp !== stamp) {
        const answer = await fetch("data");
        if (answer.status === 200) {
          stamp = answer.headers.get("etag");
          refresh(await unpack(new Uint8Array(await answer.arrayBuffer())));
        }
      }
      if (state.text) status.textContent = state.text;
      for (const [id, html] of Object.entries(state.lines ?? {})) {
        const list = document.getElementById(id);
        if (list) list.replaceChildren(...html.map((line) => make("li", {}, line)));
      }
      wait = 2000;
    } catch {
      status.textContent = "The server does not answer; start `entropilot watch` again.";
      wait = Math.min(30000, wait * 2);
    }
    setTimeout(ask, wait);
  };
  setTimeout(ask, wait);
}

function refresh(data) {
  const { rollouts } = window.page;
  const kept = { filter: { ...rollouts.filter }, mode: rollouts.colours.mode, search: document.getElementById("metric-search")?.value ?? "" };
  const focus = document.activeElement?.id;
  build(data);
  const view = window.page.rollouts;
  if (view.rollouts.rows) {
    Object.assign(view.filter, kept.filter);
    for (const [id, key] of [["roll-run", "run"], ["roll-kind", "kind"], ["roll-sort", "sort"], ["roll-text", "text"]]) {
      const control = document.getElementById(id);
      if (control) control.value = kept.filter[key];
    }
    view.slider.value = kept.filter.step === "" ? 0 : view.every.indexOf(Number(kept.filter.step)) + 1;
    view.recolour(kept.mode);
  }
  const search = document.getElementById("metric-search");
  if (search && kept.search) {
    search.value = kept.search;
    search.dispatchEvent(new Event("input"));
  }
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
}
