// Unpack the page's data: the layout is described in entropilot/reports/page/packing.py.

const TYPES = { f4: Float32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };

function fromBase64(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function unpack(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = await new Response(stream).arrayBuffer();
  const length = new DataView(raw).getUint32(0, true);
  const data = JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 4, length)));
  const base = (4 + length + 7) & ~7;
  const column = (ref) => (ref ? new TYPES[ref.type](raw, base + ref.at, ref.n) : null);

  for (const run of data.runs) {
    run.steps = column(run.steps);
    for (const name of Object.keys(run.metrics)) run.metrics[name] = column(run.metrics[name]);
    run.points = run.points ? { step: column(run.points.step), h: column(run.points.h), r: column(run.points.r) } : null;
  }
  const rollouts = data.rollouts;
  for (const name of ["run", "step", "prompt", "id", "reward", "answer", "cluster", "flags", "length", "token", "chosen"])
    rollouts[name] = column(rollouts[name]);
  const start = new Uint32Array(rollouts.rows + 1);
  for (let i = 0; i < rollouts.rows; i++) start[i + 1] = start[i] + rollouts.length[i];
  rollouts.start = start;
  rollouts.isChosen = (t) => rollouts.chosen !== null && ((rollouts.chosen[t >> 3] >> (t & 7)) & 1) === 1;
  for (const name of ["entropy", "logp", "covariance", "advantage", "drift"]) rollouts[name] = levels(rollouts[name], column);
  return data;
}

// A column of levels, fine near 0; see Packer.levels.
function levels(ref, column) {
  if (!ref) return null;
  const level = column(ref);
  const { max, signed, gaps } = ref;
  const first = gaps ? 1 : 0;
  const steps = ref.levels - first;
  return (t) => {
    if (gaps && level[t] === 0) return NaN;
    let share = (level[t] - first) / steps;
    if (!signed) return share * share * max;
    share = 2 * share - 1;
    // An even number of levels has none at 0: the two beside it stand for it.
    return Math.abs(share) * steps < 1.5 ? 0 : Math.sign(share) * share * share * max;
  };
}

// The rows of one group: a prompt's completions in one rollout of one run.
function groupOf(rollouts, row) {
  const rows = [];
  const same = (i) =>
    rollouts.run[i] === rollouts.run[row] && rollouts.step[i] === rollouts.step[row] && rollouts.id[i] === rollouts.id[row];
  for (let i = row; i >= 0 && rollouts.run[i] === rollouts.run[row] && rollouts.step[i] === rollouts.step[row]; i--)
    if (same(i)) rows.unshift(i);
  for (let i = row + 1; i < rollouts.rows && rollouts.run[i] === rollouts.run[row] && rollouts.step[i] === rollouts.step[row]; i++)
    if (same(i)) rows.push(i);
  return rows;
}
