// Before and after: one prompt at its first and its last sampled step, side by side.

function compareView(data, colours, holder) {
  const { rollouts } = data;
  const places = new Map(); // run/prompt → [first row, last row]
  for (let row = 0; row < rollouts.rows; row++) {
    const key = `${rollouts.run[row]}/${rollouts.id[row]}`;
    const known = places.get(key);
    if (!known) places.set(key, [row, row]);
    else if (rollouts.step[row] > rollouts.step[known[1]]) known[1] = row;
  }
  const pairs = [...places.values()].filter(([first, last]) => rollouts.step[first] !== rollouts.step[last]).slice(0, 500);
  pairs.sort(([a], [b]) => (rollouts.flags[b] & 4) - (rollouts.flags[a] & 4)); // fixed prompts first
  if (!pairs.length) {
    holder.replaceChildren(make("p", { class: "quiet" }, rollouts.rows ? "No data: no prompt was sampled at two steps." : "No data: no completions were sampled."));
    return;
  }
  const label = ([first]) => `${rollouts.flags[first] & 4 ? "held-out: " : ""}${data.runs.length > 1 ? `${data.runs[rollouts.run[first]].name}: ` : ""}${rollouts.texts[rollouts.prompt[first]].replace(/\s+/g, " ").slice(-80)}`;
  const select = make("select", { id: "compare-prompt" }, ...pairs.map((pair, i) => make("option", { value: i }, label(pair))));
  const sides = make("div", { class: "sides" });
  const draw = () => {
    const pair = pairs[select.value];
    sides.replaceChildren(
      ...pair.map((row, i) => {
        const texts = groupOf(rollouts, row).slice(0, 4).map((one) => make("article", { class: "completion" }, make("p", { class: "facts" }, `reward ${shown(rollouts.reward[one], 3)}`), colours.completion(one)));
        return make("div", {}, make("h3", {}, `${i ? "After" : "Before"}: step ${whole(rollouts.step[row])}`), ...texts);
      }),
    );
  };
  select.addEventListener("change", draw);
  holder.replaceChildren(make("p", { class: "field" }, make("label", { for: "compare-prompt" }, "prompt"), select), sides);
  document.addEventListener("recoloured", draw);
  draw();
}
