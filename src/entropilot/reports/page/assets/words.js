// Which words carry the change of entropy: tokens by their summed covariance over all samples.

function wordsView(data, holder) {
  const { rollouts } = data;
  if (!rollouts.rows || !rollouts.covariance) {
    holder.replaceChildren(make("p", { class: "quiet" }, "No data: no sample holds a covariance per token. `entropilot train` records it with probe.tokens_every."));
    return;
  }
  const size = rollouts.vocabulary.length;
  const sum = new Float64Array(size);
  const count = new Uint32Array(size);
  const entropy = new Float64Array(size);
  const chosen = new Uint32Array(size);
  let total = 0;
  for (let t = 0; t < rollouts.token.length; t++) {
    const value = rollouts.covariance(t);
    if (Number.isNaN(value)) continue;
    const word = rollouts.token[t];
    sum[word] += value;
    total += value;
    count[word]++;
    if (rollouts.entropy) entropy[word] += rollouts.entropy(t) || 0;
    if (rollouts.isChosen(t)) chosen[word]++;
  }
  const order = Array.from(count.keys()).filter((word) => count[word]).sort((a, b) => sum[b] - sum[a]);
  const row = (word) =>
    make("tr", {}, make("th", { scope: "row" }, make("code", {}, JSON.stringify(rollouts.vocabulary[word]))), ...[count[word], sum[word], total ? sum[word] / total : NaN, entropy[word] / count[word], chosen[word]].map((value) => make("td", {}, shown(value, 3))));
  const heads = ["token", "times", "sum of covariance", "share of the total", "mean entropy, nats", "times chosen"];
  const table = make("table", {}, make("caption", {}, `The ${Math.min(20, order.length)} tokens with the largest summed covariance, of ${whole(order.length)} different ones in the samples.`), make("thead", {}, make("tr", {}, ...heads.map((head, i) => make("th", { scope: "col", class: i ? "" : "text" }, head)))), make("tbody", {}, ...order.slice(0, 20).map(row)));
  holder.replaceChildren(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Tokens by covariance" }, table));
}
