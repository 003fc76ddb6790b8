/** Statistics of lists of numbers, and small linear systems. */

/** Return the mean. */
export function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Return the quantile, linear between neighbouring values. */
export function quantile(values, share) {
  const sorted = Float64Array.from(values).sort(), place = share * (sorted.length - 1), low = Math.floor(place);
  return sorted[low] + (place - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}

/** Return the quantile of values with weights; with equal weights, that of `quantile`. */
export function weightedQuantile(values, weights, share) {
  const order = values.map((_, i) => i).sort((i, j) => values[i] - values[j]);
  const places = [];
  let sum = 0;
  for (const i of order) {
    const weight = Math.max(weights[i], 1e-6);  // frames with one time stamp weigh nothing
    places.push(sum + weight / 2);
    sum += weight;
  }
  const last = places.length - 1, place = places[0] + share * (places[last] - places[0]);
  const above = places.findIndex((one) => one >= place), high = above < 0 ? last : above, low = Math.max(high - 1, 0);
  const part = high > low ? (place - places[low]) / (places[high] - places[low]) : 0;
  return values[order[low]] + part * (values[order[high]] - values[order[low]]);
}

/** Return the median. */
export function median(values) {
  return quantile(values, 0.5);
}

/** Return a value moved into [low, high]. */
export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/** Return x of matrix x = values, by Gaussian elimination; matrix: rows. */
export function solve(matrix, values) {
  const rows = matrix.map((row, i) => [...row, values[i]]), count = rows.length;
  for (let step = 0; step < count; step++) {
    let best = step;
    for (let i = step + 1; i < count; i++) if (Math.abs(rows[i][step]) > Math.abs(rows[best][step])) best = i;
    [rows[step], rows[best]] = [rows[best], rows[step]];
    for (let i = 0; i < count; i++) {
      if (i === step) continue;
      const factor = rows[i][step] / rows[step][step];
      for (let j = step; j <= count; j++) rows[i][j] -= factor * rows[step][j];
    }
  }
  return rows.map((row, i) => row[count] / row[i]);
}
