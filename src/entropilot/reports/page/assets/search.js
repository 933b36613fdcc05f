// Search the texts of completions without joining them: a hit lies within one token, or begins at the end of one.

const lower = (text) => text.toLowerCase().replaceAll("ς", "σ"); // σ at the end of a word, which a token need not be

class Search {
  constructor(rollouts) {
    this.rollouts = rollouts;
    this.vocabulary = null;
  }

  // Return a function that says whether the words stand in a row's prompt or completion.
  of(words) {
    const { rollouts } = this;
    this.vocabulary ??= rollouts.vocabulary.map(lower);
    const aim = lower(words);
    const kinds = this.kinds(aim);
    const known = new Map();
    const inPrompt = (number) => {
      if (!known.has(number)) known.set(number, lower(rollouts.texts[number]).includes(aim));
      return known.get(number);
    };
    return (row) => inPrompt(rollouts.prompt[row]) || this.inTokens(row, aim, kinds);
  }

  // For every token: 2 if it holds the words, 1 if it ends with the first letters of them, 0 otherwise.
  kinds(aim) {
    const last = new Map(); // letter → lengths of the beginnings of the words that end with it
    for (let n = 1; n < aim.length; n++) {
      const letter = aim[n - 1];
      last.set(letter, [...(last.get(letter) ?? []), n]);
    }
    const kinds = new Uint8Array(this.vocabulary.length);
    this.vocabulary.forEach((word, i) => {
      if (word.includes(aim)) kinds[i] = 2;
      else if (last.get(word[word.length - 1])?.some((n) => word.endsWith(aim.slice(0, n)))) kinds[i] = 1;
    });
    return kinds;
  }

  inTokens(row, aim, kinds) {
    const { token, start } = this.rollouts;
    const end = start[row + 1];
    for (let t = start[row]; t < end; t++) {
      const kind = kinds[token[t]];
      if (kind === 2) return true;
      if (kind === 1 && this.across(t, end, aim)) return true;
    }
    return false;
  }

  // Whether the words begin within token t and go on in those behind it.
  across(t, end, aim) {
    const { token } = this.rollouts;
    let text = this.vocabulary[token[t]].slice(1 - aim.length);
    const enough = text.length + aim.length - 1;
    for (let next = t + 1; next < end && text.length < enough; next++) text += this.vocabulary[token[next]].slice(0, aim.length);
    return text.includes(aim);
  }
}
