// From logits to probabilities, and from these to the labels given: the same as tagwright/decisions.py.

/** Sigmoid of each logit (multilabel) or softmax of the row (multiclass): a Float32Array. */
export function probabilities(logits, kind) {
  if (kind !== "multiclass") return Float32Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const powers = logits.map((logit) => Math.exp(logit - highest));
  const sum = powers.reduce((a, b) => a + b);
  return Float32Array.from(powers, (power) => power / sum);
}

/** Which labels a text is given, and which not: two lists of their indices, each best first; of equal ones the first. */
export function decide(scores, { thresholds, kind }) {
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
  // As in Python a threshold is compared in float32, which its decimal may be just above.
  const isGiven = kind === "multiclass" ? (index) => index === order[0] : (index) => scores[index] >= Math.fround(thresholds[index]);
  return { given: order.filter(isGiven), others: order.filter((index) => !isGiven(index)) };
}
