// The browser of sampled completions: a slider over steps, filters, sorting, a list, and a group in full.

const ROW_HEIGHT = 64;

class Rollouts {
  constructor(data, colours) {
    Object.assign(this, { data, colours, rollouts: data.rollouts });
    this.steps = data.runs.map((_, run) => [...new Set(this.rowsOf(run).map((row) => this.rollouts.step[row]))].sort((a, b) => a - b));
    this.search = new Search(this.rollouts);
    this.items = new Map(); // place in the list → its element, for those in view
    this.filter = { run: "", step: "", kind: "all", text: "", sort: "order" };
    this.list = make("ol", { class: "rows", tabindex: "0", "aria-label": "Sampled completions" });
    this.box = make("div", { class: "listbox" }, this.list);
    this.count = make("p", { class: "quiet", role: "status" });
    this.detail = make("div", { class: "detail", tabindex: "-1", "aria-live": "polite" });
    this.rows = [];
    this.box.addEventListener("scroll", () => this.window());
    new ResizeObserver(([entry]) => {
      this.height = entry.contentRect.height; // kept, because asking for it while scrolling makes the browser lay out at once
      if (this.height && this.first !== undefined) {
        this.box.scrollTop = Math.max(0, this.rows.indexOf(this.first) - 2) * ROW_HEIGHT; // it has no room to scroll before
        this.first = undefined;
      }
      this.window();
    }).observe(this.box);
    this.list.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-row]");
      if (button) this.open(Number(button.dataset.row));
    });
  }

  rowsOf(run) {
    const rows = [];
    for (let i = 0; i < this.rollouts.rows; i++) if (this.rollouts.run[i] === run) rows.push(i);
    return rows;
  }

  wrong(row) {
    return this.rollouts.reward[row] <= this.middle;
  }

  summed(row, read) {
    let total = 0;
    for (let t = this.rollouts.start[row]; t < this.rollouts.start[row + 1]; t++) total += read(t);
    return total;
  }

  highest(row) {
    if (!this.rollouts.covariance) return 0;
    let top = -Infinity;
    for (let t = this.rollouts.start[row]; t < this.rollouts.start[row + 1]; t++) {
      const value = this.rollouts.covariance(t);
      if (value > top) top = value;
    }
    return top;
  }

  draw(holder) {
    if (!this.rollouts.rows) {
      holder.replaceChildren(make("p", { class: "quiet" }, "No data: no completions were sampled. `entropilot train` samples them with probe.tokens_every."));
      return;
    }
    let low = Infinity;
    let high = -Infinity;
    for (const reward of this.rollouts.reward)
      if (!Number.isNaN(reward)) {
        low = Math.min(low, reward);
        high = Math.max(high, reward);
      }
    [this.low, this.high, this.middle] = [low, high, (low + high) / 2];
    const every = [...new Set(this.steps.flat())].sort((a, b) => a - b);
    this.every = every;
    const field = (id, label, control) => make("p", { class: "field" }, make("label", { for: id }, label), control);
    const choose = (id, options, key) => {
      const select = make("select", { id, onchange: () => this.set(key, select.value) }, ...options.map(([value, words]) => make("option", { value }, words)));
      return select;
    };
    this.slider = make("input", { type: "range", id: "roll-step", min: 0, max: every.length, value: 0, oninput: () => this.set("step", this.slider.value === "0" ? "" : every[this.slider.value - 1]) });
    this.said = make("output", { for: "roll-step" });
    const kinds = [["all", "all"], ["wrong", "low reward"], ["right", "high reward"], ["truncated", "cut at the length limit"], ["chosen", "with chosen tokens"], ["held_out", "fixed held-out prompts"], ["training", "from training"]];
    const sorts = [["order", "as sampled"], ["covariance", "highest covariance"], ["chosen", "most chosen tokens"], ["longest", "longest"], ["reward", "lowest reward"]];
    const controls = make("div", { class: "controls" },
      make("p", { class: "field wide" }, make("label", { for: "roll-step" }, "step"), this.slider, this.said),
      this.data.runs.length > 1 ? field("roll-run", "run", choose("roll-run", [["", "all runs"], ...this.data.runs.map((run, i) => [i, run.name])], "run")) : null,
      field("roll-kind", "show", choose("roll-kind", kinds, "kind")),
      field("roll-sort", "sort by", choose("roll-sort", sorts, "sort")),
      field("roll-text", "search text", make("input", { type: "search", id: "roll-text", oninput: (event) => this.set("text", event.target.value) })),
    );
    const modes = make("select", { id: "token-mode", onchange: (event) => this.recolour(event.target.value) }, ...this.colours.available().map((mode) => make("option", { value: mode }, mode === "logp" ? "log-prob" : mode)));
    this.legend = make("div", {});
    holder.replaceChildren(controls, field("token-mode", "colour tokens by", modes), this.legend, this.count, make("div", { class: "browser" }, this.box, this.detail));
    if (!this.colours.available().includes(this.colours.mode)) this.colours.mode = this.colours.available()[0] ?? "entropy";
    this.recolour(this.colours.mode);
    this.opening();
  }

  // Open where a method chose tokens or something went wrong: the latest such row.
  opening() {
    const { rollouts } = this;
    const key = (row) => `${rollouts.run[row]}/${rollouts.step[row]}/${rollouts.id[row]}`;
    const sizes = new Map();
    for (let row = 0; row < rollouts.rows; row++) sizes.set(key(row), (sizes.get(key(row)) ?? 0) + 1);
    let best = 0;
    let score = -1;
    for (let row = 0; row < rollouts.rows; row++) {
      let chosen = 0;
      for (let t = rollouts.start[row]; t < rollouts.start[row + 1]; t++) if (rollouts.isChosen(t)) chosen = 1;
      const value = 2 * chosen + (this.wrong(row) && this.low < this.high ? 1 : 0) + (sizes.get(key(row)) > 1 ? 2 : 0); // several to compare
      if (value >= score) [best, score] = [row, value];
    }
    this.open(best, false);
    this.first = best; // the list begins there once it is in view
  }

  set(key, value) {
    this.filter[key] = value;
    this.apply();
    if (value !== "" && (key === "step" || key === "run")) this.keepPrompt();
  }

  // After another step or run was chosen: show the opened prompt there, or the first row where it was not sampled.
  keepPrompt() {
    const { rollouts } = this;
    const same = this.rows.filter((row) => rollouts.id[row] === rollouts.id[this.opened]);
    const row = same.find((one) => rollouts.run[one] === rollouts.run[this.opened]) ?? same[0] ?? this.rows[0];
    if (row !== undefined) this.open(row, false);
  }

  recolour(mode) {
    this.colours.mode = mode;
    const select = document.getElementById("token-mode");
    if (select) select.value = mode;
    this.legend.replaceChildren(this.colours.available().length ? this.colours.legend() : make("p", { class: "quiet" }, "No numbers per token were recorded."));
    this.apply();
    if (this.opened !== undefined) this.open(this.opened, false);
    document.dispatchEvent(new Event("recoloured"));
  }

  apply() {
    const began = performance.now();
    const { run, step, kind, text, sort } = this.filter;
    const { rollouts } = this;
    const holds = text.trim() ? this.search.of(text.trim()) : null;
    const keep = [];
    for (let row = 0; row < rollouts.rows; row++) {
      if (run !== "" && rollouts.run[row] !== Number(run)) continue;
      if (step !== "" && rollouts.step[row] !== Number(step)) continue;
      const flags = rollouts.flags[row];
      if (kind === "wrong" && !(rollouts.reward[row] <= this.middle)) continue;
      if (kind === "right" && !(rollouts.reward[row] > this.middle)) continue;
      if (kind === "truncated" && !(flags & 1)) continue;
      if (kind === "held_out" && !(flags & 4)) continue;
      if (kind === "training" && flags & 4) continue;
      if (kind === "chosen" && !this.chosenIn(row)) continue;
      if (holds && !holds(row)) continue;
      keep.push(row);
    }
    const by = { covariance: (row) => this.highest(row), chosen: (row) => this.summed(row, (t) => (rollouts.isChosen(t) ? 1 : 0)), longest: (row) => rollouts.length[row], reward: (row) => -rollouts.reward[row] }[sort];
    if (by) {
      const key = new Map(keep.map((row) => [row, by(row)]));
      keep.sort((a, b) => key.get(b) - key.get(a));
    }
    this.rows = keep;
    this.said.textContent = step === "" ? " all sampled steps" : ` ${whole(step)}`;
    this.slider.setAttribute("aria-valuetext", this.said.textContent.trim());
    this.count.textContent = `${whole(keep.length)} of ${whole(rollouts.rows)} completions`;
    this.box.scrollTop = 0;
    if (this.opened !== undefined) this.first = undefined; // the reader has chosen
    this.list.style.height = `${Math.max(1, keep.length) * ROW_HEIGHT}px`;
    this.list.replaceChildren();
    this.items.clear();
    this.window();
    this.seconds = performance.now() - began;
  }

  chosenIn(row) {
    for (let t = this.rollouts.start[row]; t < this.rollouts.start[row + 1]; t++) if (this.rollouts.isChosen(t)) return true;
    return false;
  }

  // Only the rows in view are in the document; those that stay in view stay as they are.
  window() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - 3);
    const last = Math.min(this.rows.length, first + Math.ceil((this.height || 480) / ROW_HEIGHT) + 6);
    for (const [place, item] of this.items)
      if (place < first || place >= last) {
        item.remove();
        this.items.delete(place);
      }
    let before = null; // in the order of the list, which is that of the keyboard
    for (let place = last - 1; place >= first; place--) {
      let item = this.items.get(place);
      if (!item) {
        item = this.item(this.rows[place], place);
        this.items.set(place, item);
        this.list.insertBefore(item, before);
      }
      before = item;
    }
  }

  item(row, place) {
    const { rollouts } = this;
    const facts = [`step ${whole(rollouts.step[row])}`];
    if (this.data.runs.length > 1) facts.unshift(this.data.runs[rollouts.run[row]].name);
    facts.push(`${whole(rollouts.length[row])} tokens`);
    if (rollouts.flags[row] & 1) facts.push("cut");
    if (rollouts.flags[row] & 4) facts.push("held-out prompt");
    const button = make("button", { type: "button", "data-row": row, "aria-current": row === this.opened ? "true" : false },
      make("span", { class: "facts" }, this.bar(row), facts.join(" · ")),
      this.colours.line(row),
    );
    const item = make("li", { "aria-setsize": this.rows.length, "aria-posinset": place + 1 }, button);
    item.style.top = `${place * ROW_HEIGHT}px`;
    return item;
  }

  bar(row) {
    const reward = this.rollouts.reward[row];
    const share = Number.isNaN(reward) || this.high === this.low ? 0 : (reward - this.low) / (this.high - this.low);
    const fill = make("span", { class: "fill" });
    fill.style.width = `${Math.round(100 * share)}%`;
    return make("span", { class: "reward" }, make("span", { class: "bar", "aria-hidden": "true" }, fill), `reward ${shown(reward, 3)} `);
  }

  // Show a row's group in full: the prompt once, then its completions.
  open(row, focus = true) {
    this.opened = row;
    const { rollouts } = this;
    const rows = groupOf(rollouts, row);
    const prompt = rollouts.texts[rollouts.prompt[row]];
    const others = [];
    for (let i = 0; i < rollouts.rows; i++) if (rollouts.id[i] === rollouts.id[row]) others.push(i);
    const places = new Map(); // run and step → the first row there
    for (const i of others) if (!places.has(`${rollouts.run[i]}/${rollouts.step[i]}`)) places.set(`${rollouts.run[i]}/${rollouts.step[i]}`, i);
    const role = rollouts.flags[row] & 4 ? "fixed held-out prompt" : "prompt from training";
    const head = make("h3", {}, `Step ${whole(rollouts.step[row])}`, this.data.runs.length > 1 ? `, ${this.data.runs[rollouts.run[row]].name}` : "", `: ${role}`);
    let jump = null;
    if (places.size > 1) {
      const options = [...places.values()].map((i) => make("option", { value: i, selected: rollouts.run[i] === rollouts.run[row] && rollouts.step[i] === rollouts.step[row] }, `step ${rollouts.step[i]}${this.data.runs.length > 1 ? `, ${this.data.runs[rollouts.run[i]].name}` : ""}`));
      const here = [...places.values()].filter((i) => rollouts.run[i] === rollouts.run[row]).sort((a, b) => rollouts.step[a] - rollouts.step[b]);
      const at = here.findIndex((i) => rollouts.step[i] === rollouts.step[row]);
      const go = (id, words, target) => make("button", { type: "button", id, disabled: target === undefined, onclick: () => { this.open(target, false); document.getElementById(id).focus(); } }, words);
      jump = make("p", { class: "field" }, make("label", { for: "same-prompt" }, "this prompt at"), make("select", { id: "same-prompt", onchange: (event) => { this.open(Number(event.target.value), false); document.getElementById("same-prompt").focus(); } }, ...options), go("prompt-earlier", "◀ earlier", here[at - 1]), go("prompt-later", "later ▶", here[at + 1]));
    }
    const meanings = new Map();
    for (const i of rows) if (rollouts.cluster[i]) meanings.set(rollouts.cluster[i], (meanings.get(rollouts.cluster[i]) ?? 0) + 1);
    const count = `${rows.length} completion${rows.length === 1 ? "" : "s"} of this prompt in the sample of this step`;
    let summary = make("p", { class: "quiet" }, `${count}.`);
    if (meanings.size) {
      const total = rows.length;
      const entropy = -[...meanings.values()].reduce((sum, n) => sum + (n / total) * Math.log(n / total), 0);
      summary = make("p", { class: "quiet" }, `${count}, with ${meanings.size} different answers; their semantic entropy is ${shown(Math.max(0, entropy), 3)} nats (0 if all agree).`);
    }
    const articles = rows.map((i) => {
      const facts = [`${whole(rollouts.length[i])} tokens`];
      if (rollouts.flags[i] & 2) facts.push(rollouts.flags[i] & 1 ? "cut at the length limit" : "ended by itself");
      if (rollouts.answer[i]) facts.push(`answer ${rollouts.texts[rollouts.answer[i] - 1]}`);
      if (rollouts.cluster[i]) facts.push(`meaning ${rollouts.cluster[i]}`);
      return make("article", { class: i === row ? "completion current" : "completion" }, make("p", { class: "facts" }, this.bar(i), facts.join(" · ")), this.colours.completion(i));
    });
    this.detail.replaceChildren(head, ...[jump, make("p", { class: "prompt" }, prompt), summary].filter(Boolean), ...articles);
    for (const button of this.list.querySelectorAll("button[aria-current]")) button.removeAttribute("aria-current");
    this.list.querySelector(`button[data-row="${row}"]`)?.setAttribute("aria-current", "true");
    if (focus) this.detail.focus();
  }

  // Show the sampled step nearest to one that was clicked on a chart.
  show(step) {
    if (!this.rollouts.rows) return;
    const nearest = this.every.reduce((best, one) => (Math.abs(one - step) < Math.abs(best - step) ? one : best), this.every[0]);
    this.slider.value = this.every.indexOf(nearest) + 1;
    this.set("step", nearest);
    if (this.rows.length) this.open(this.rows[0], false);
    document.getElementById("rollouts").scrollIntoView({ behavior: "smooth" });
    this.box.querySelector("button")?.focus({ preventScroll: true });
  }
}
