// Completions as coloured tokens: the colour shows one number per token, with a legend; values on hover, focus and tap.

const MODES = {
  entropy: { words: "entropy, nats: how undecided the model was", signed: false },
  logp: { words: "log-probability of the token that was taken, nats", signed: true },
  covariance: { words: "covariance of log-probability and advantage: large values lower entropy", signed: true },
  advantage: { words: "advantage: positive makes the token more likely", signed: true },
  drift: { words: "drift: log-probability after the updates on these completions minus before, nats; known for completions from training", signed: true },
  chosen: { words: "chosen by the method", signed: false },
};
const SHADES = 12; // of colour, beside none
const LINE = 90; // characters of a completion that the list shows
const LONGEST = 3000; // tokens shown of one completion before a button shows the rest

class Colours {
  constructor(rollouts) {
    this.rollouts = rollouts;
    this.mode = "entropy";
    this.scales = {};
    for (const mode of Object.keys(MODES)) this.scales[mode] = this.scale(mode);
  }

  available() {
    return Object.keys(MODES).filter((mode) => (mode === "chosen" ? this.rollouts.chosen !== null : this.rollouts[mode] !== null));
  }

  // The value that gets the full colour: the 99th percentile of |x| over at most 20,000 tokens spread over all.
  scale(mode) {
    if (mode === "chosen") return 1;
    const read = this.rollouts[mode];
    if (!read) return 1;
    const total = this.rollouts.token.length;
    const stride = Math.max(1, Math.floor(total / 20000));
    const sizes = [];
    for (let t = 0; t < total; t += stride) {
      const value = Math.abs(read(t));
      if (!Number.isNaN(value)) sizes.push(value);
    }
    sizes.sort((a, b) => a - b);
    return sizes[Math.floor(0.99 * (sizes.length - 1))] || 1;
  }

  value(t) {
    if (this.mode === "chosen") return this.rollouts.isChosen(t) ? 1 : 0;
    const read = this.rollouts[this.mode];
    return read ? read(t) : NaN;
  }

  // The shade of a value: 0 is none, positive is warm, negative is cold.
  shade(value) {
    if (Number.isNaN(value) || value === 0) return 0;
    const share = Math.min(1, Math.abs(value) / this.scales[this.mode]);
    return Math.sign(value) * Math.ceil(SHADES * share);
  }

  // The class of a shade, or nothing. Classes, because the style sheet's rules are read once and not for every token.
  of(value) {
    const shade = this.shade(value);
    return shade ? `${shade < 0 ? "cold" : "heat"} s${Math.abs(shade)}` : "";
  }

  legend() {
    const { words, signed } = MODES[this.mode];
    const top = this.scales[this.mode];
    const stops = this.mode === "chosen" ? [0, 1] : signed ? [-top, -top / 2, 0, top / 2, top] : [0, top / 4, top / 2, (3 * top) / 4, top];
    const item = (value, i) => {
      const end = this.mode !== "chosen" && i === stops.length - 1 ? " and more" : "";
      const label = make("span", { class: "swatch" }, this.mode === "chosen" ? ["not chosen", "chosen"][value] : shown(value, 2) + end);
      label.className = `swatch ${this.of(value)}`;
      return make("li", {}, label);
    };
    return make("ul", { class: "legend", "aria-label": `Legend: ${words}` }, make("li", {}, words), ...stops.map(item), this.rollouts.chosen ? make("li", {}, make("u", {}, "underlined"), ": chosen by the method") : null);
  }

  numbers(t) {
    const { rollouts } = this;
    const parts = [`“${rollouts.vocabulary[rollouts.token[t]]}”`];
    for (const name of ["entropy", "logp", "covariance", "advantage", "drift"])
      if (rollouts[name]) parts.push(`${name === "logp" ? "log-prob" : name} ${shown(rollouts[name](t), 3)}`);
    if (rollouts.isChosen(t)) parts.push("chosen");
    return parts.join(" · ");
  }

  // The tokens of a row; arrow keys move from one to the next.
  completion(row) {
    const { rollouts } = this;
    const from = rollouts.start[row];
    const to = rollouts.start[row + 1];
    const text = make("p", { class: "tokens", tabindex: "0", role: "group", "aria-label": "Tokens; left and right arrow keys read the numbers of each" });
    const add = (begin, end) => {
      for (let t = begin; t < end; t++) {
        const word = rollouts.vocabulary[rollouts.token[t]];
        const span = make(rollouts.isChosen(t) ? "u" : "span", {}, word === "" ? "∅" : word.replaceAll("\n", "↵\n"));
        span.dataset.t = t;
        span.className = this.of(this.value(t));
        text.append(span);
      }
    };
    add(from, Math.min(to, from + LONGEST));
    if (to - from > LONGEST) {
      const more = make("button", { type: "button" }, `show ${whole(to - from - LONGEST)} more tokens`);
      more.addEventListener("click", () => {
        more.remove();
        add(from + LONGEST, to);
      });
      text.append(more);
    }
    if (to === from) text.append(make("span", { class: "quiet" }, "(empty)"));
    let at = null;
    const show = (span) => {
      if (!span || span.dataset.t === undefined) return;
      at?.classList.remove("at");
      at = span;
      at.classList.add("at");
      readout(this.numbers(Number(span.dataset.t)));
    };
    text.addEventListener("pointerover", (event) => show(event.target.closest("[data-t]")));
    text.addEventListener("click", (event) => show(event.target.closest("[data-t]")));
    text.addEventListener("keydown", (event) => {
      const next = { ArrowRight: at ? at.nextElementSibling : text.firstElementChild, ArrowLeft: at?.previousElementSibling }[event.key];
      if (!next) return;
      show(next);
      next.scrollIntoView({ block: "nearest" });
      event.preventDefault();
    });
    return text;
  }

  // The beginning of a completion for the list; neighbours of the same look are one element.
  line(row) {
    const { rollouts } = this;
    const end = rollouts.start[row + 1];
    const holder = document.createElement("span");
    holder.className = "line";
    let [text, look, length] = ["", null, 0];
    const flush = () => {
      if (!text) return;
      const part = document.createElement(look.chosen ? "u" : "span");
      part.textContent = text;
      if (look.shade) part.className = this.of(look.value);
      holder.append(part);
    };
    for (let t = rollouts.start[row]; t < end && length < LINE; t++) {
      const value = this.value(t);
      const next = { value, shade: this.shade(value), chosen: rollouts.isChosen(t) };
      if (look && (next.shade !== look.shade || next.chosen !== look.chosen)) {
        flush();
        text = "";
      }
      const word = rollouts.vocabulary[rollouts.token[t]];
      look = next;
      text += word;
      length += word.length;
    }
    flush();
    return holder;
  }
}
