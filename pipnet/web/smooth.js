/** Filters that steady landmarks in a video, as pipnet/video/smooth.py. */

import { boxOf, distance, iou, similarity, transform } from "./geometry.js";
import { median } from "./numbers.js";

/** Return the filter of a name; settings: constants of the One-Euro filter. */
export function makeSmooth(name, settings) {
  return name === "one-euro" ? new OneEuro(settings) : { update: (faces) => new Map([...faces].map(([id, face]) => [id, face.landmarks])) };
}

/** The One-Euro filter (Casiez, Roussel & Vogel, CHI 2012) with separate filters for the whole face and movement within it. */
class OneEuro {
  constructor(settings) {
    this.settings = settings;
    this.states = new Map();
    this.seconds = 0;
  }

  /** Return {id: smoothed landmarks} of faces {id: face} of the frame at `seconds`. */
  update(faces, seconds) {
    const passed = Math.max(seconds - this.seconds, 1e-3);
    this.seconds = seconds;
    this.states = new Map([...faces].map(([id, { landmarks }]) => [id, this.next(this.states.get(id), landmarks, passed)]));
    return new Map([...this.states].map(([id, state]) => [id, state.smooth]));
  }

  /** Return the state of a face after this frame: distances in face sizes; common, own and noise are low-passed. */
  next(before, found, passed) {
    const { min_cutoff: cutoff, beta, speed_cutoff: speedCutoff, hold, noise: firstNoise, noise_cutoff: noiseCutoff, floor, jump } = this.settings;
    if (!before || !(iou(boxOf(before.found), boxOf(found)) > jump)) {  // also where it is no number
      const rest = found.map(() => [0, 0]);
      return { found, smooth: found, common: rest, own: rest, peak: rest, noise: firstNoise };
    }
    const [x1, y1, x2, y2] = boxOf(found), size = Math.max(x2 - x1, y2 - y1), share = gain(speedCutoff, passed);
    const moved = carried(before.found, found);
    const within = median(found.map((point, i) => distance(point, moved[i]))) / size;
    const noise = before.noise + gain(noiseCutoff, passed) * (within - before.noise);
    const velocity = (last, from, to) => last.map((value, axis) => value + share * ((to[axis] - from[axis]) / size / passed - value));
    const common = found.map((_, i) => velocity(before.common[i], before.found[i], moved[i]));
    const own = found.map((point, i) => velocity(before.own[i], moved[i], point));
    const still = floor.map((times) => (times * noise * share) / passed);  // speed that the net's jitter alone causes
    const peak = found.map((_, i) => [common[i], own[i]].map((speed, kind) =>
      Math.max(Math.hypot(...speed) - still[kind], before.peak[i][kind] * Math.exp(-passed / hold))));
    const last = carried(before.smooth, found);
    const smooth = found.map((point, i) => {
      const [shared, single] = peak[i].map((speed) => gain(cutoff + beta * Math.max(speed, 0), passed));
      return point.map((value, axis) => before.smooth[i][axis] + shared * (last[i][axis] - before.smooth[i][axis])
        + single * (value - last[i][axis]));
    });
    return { found, smooth, common, own, peak, noise };
  }
}

/** Return the weight of the new value in a low-pass filter of `cutoff` Hz, `seconds` after the last value. */
function gain(cutoff, seconds) {
  return 1 / (1 + 1 / (2 * Math.PI * cutoff * seconds));
}

/** Return the points moved by the similarity that maps the half of them with the least own movement onto `onto`. */
function carried(points, onto) {
  const apart = transform(points, similarity(points, onto)).map((point, i) => distance(point, onto[i]));
  const order = points.map((_, i) => i).sort((i, j) => apart[i] - apart[j]);  // of equals the first comes first
  const steady = order.slice(0, Math.max(Math.ceil(points.length / 2), 2));   // a similarity needs two points
  return transform(points, similarity(steady.map((i) => points[i]), steady.map((i) => onto[i])));
}
