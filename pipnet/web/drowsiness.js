/** Drowsiness from landmarks: how open eyes and mouth are, blinks, yawns, closed eyes, as pipnet/video/drowsiness.py. */

import { distance } from "./geometry.js";
import { mean, median, weightedQuantile } from "./numbers.js";

export class Drowsiness {
  /** settings: constants, and the landmarks of both `eyes` and the `mouth` (null without it), each along its rim. */
  constructor(settings) {
    this.settings = settings;
    this.states = new Map();
  }

  /** Return the fields that demo.py writes for a face at `seconds`; states: probabilities that the net predicts, or null. */
  update(id, landmarks, seconds, states) {
    const { settings } = this;
    for (const [key, { seconds: last }] of this.states) if (seconds - last > settings.forget) this.states.delete(key);
    if (!this.states.has(id)) this.states.set(id, newState());
    const state = this.states.get(id), ears = settings.eyes.map((ring) => aspect(landmarks, ring));
    const widths = settings.eyes.map((ring) => width(landmarks, ring) ** 2), sum = Math.max(widths[0] + widths[1], 1e-9);
    const weights = widths.map((value) => value / sum);  // an eye seen at a steep angle gets less
    const mouth = settings.mouth && aspect(landmarks, settings.mouth);
    state.seconds = seconds;
    let open = NaN;  // a frame whose eyes are not finite is not measured
    if (ears.every(Number.isFinite)) {
      watch(state, ears, seconds, settings);
      open = weighted(ears.map((ear, eye) => ear / state.baseline[eye]), weights);
      let closed = open < settings.closed;
      if (states && settings.eye_states.every((name) => Number.isFinite(states[name]))) {
        closed = weighted(settings.eye_states.map((name) => states[name]), weights) > 0.5;
      }
      state.closedSince = closed ? state.closedSince ?? seconds : null;
      countBlinks(state, weighted(ears, weights), weighted(state.baseline, weights), seconds, settings);
    }
    if (mouth !== null && Number.isFinite(mouth)) countYawns(state, mouth, seconds, settings);
    const [watched, perclos] = perclosOf(state);
    let alarm = null;
    if (state.closedSince !== null && seconds - state.closedSince >= settings.alarm_closed) alarm = "eyes closed";
    else if (perclos >= settings.alarm_perclos && watched >= settings.window / 3) alarm = "perclos";
    return { ear_left: ears[0], ear_right: ears[1], mouth, open, closed: state.closedSince !== null, perclos, blinks: state.blinks,
      blink_seconds: state.blinkSeconds, yawns: state.yawns, alarm };
  }
}

function newState() {
  return { seconds: -Infinity, eyes: [], recent: [], baseline: [1, 1], rebase: -Infinity, closedSince: null,
    dip: null, blinks: 0, blinkSeconds: null, yawnSince: null, yawned: false, yawns: 0 };
}

const weighted = (values, weights) => values[0] * weights[0] + values[1] * weights[1];

/** Return the distance of the two corners of a closed group of landmarks, px. */
function width(landmarks, ring) {
  return distance(landmarks[ring[0]], landmarks[ring[ring.length / 2]]);
}

/** Return height over width of a closed group of landmarks, listed along the upper rim and back along the lower one. */
function aspect(landmarks, ring) {
  const half = ring.length / 2, upper = ring.slice(1, half), lower = ring.slice(half + 1).reverse();
  return mean(upper.map((i, k) => distance(landmarks[i], landmarks[lower[k]]))) / Math.max(width(landmarks, ring), 1e-9);
}

/** Add a frame to the window, and update the aspect ratios of the open eyes. The frame before lasts until this one. */
function watch(state, ears, seconds, { window, gap, baseline, rebase }) {
  const last = state.eyes.at(-1), step = last ? Math.min(Math.max(seconds - last.seconds, 0), gap) : 0;
  const shut = (last?.shut ?? 0) + step * (state.closedSince !== null);
  state.eyes.push({ seconds, ears, watched: (last?.watched ?? 0) + step, shut });
  while (state.eyes[0].seconds < seconds - window) state.eyes.shift();
  if (seconds < state.rebase) return;
  const steps = state.eyes.slice(1).map(({ watched }, i) => watched - state.eyes[i].watched);
  const weights = [...steps, steps.at(-1) ?? 1];
  state.baseline = [0, 1].map((eye) => Math.max(weightedQuantile(state.eyes.map((one) => one.ears[eye]), weights, baseline), 1e-6));
  state.rebase = seconds + rebase;
}

/** Return [s of the window in which the face was seen, share of these with closed eyes]. */
function perclosOf({ eyes, closedSince }) {
  if (!eyes.length) return [0, 0];
  const first = eyes[0], last = eyes.at(-1), watched = last.watched - first.watched;
  return [watched, watched ? (last.shut - first.shut) / watched : Number(closedSince !== null)];
}

/** Count a blink when the aspect ratio falls below its level of the last second and comes half the way back in time. */
function countBlinks(state, ear, openEar, seconds, settings) {
  const { level: span, dip, noise, closed, blink: [shortest, longest] } = settings;
  while (state.recent.length && state.recent[0].seconds < seconds - span) state.recent.shift();
  const values = state.recent.map((one) => one.ear);
  if (state.dip === null && values.length >= 3 && seconds - state.recent[0].seconds > span / 3) {
    const level = median(values), changes = values.slice(1).map((value, i) => Math.abs(value - values[i]));
    const fall = Math.max(dip * level, noise * median(changes));
    if (ear < level - fall && level > closed * openEar) state.dip = { start: seconds, level, lowest: ear };
  } else if (state.dip !== null) {
    state.dip.lowest = Math.min(state.dip.lowest, ear);
    const { start, level, lowest } = state.dip;
    if (seconds - start > longest) {  // too long for a blink: a new level
      state.dip = null;
      state.recent = [];
    } else if (ear > (level + lowest) / 2) {
      state.dip = null;
      if (seconds - start >= shortest) {
        state.blinks += 1;
        state.blinkSeconds = seconds - start;
      }
    }
  }
  state.recent.push({ seconds, ear });
}

/** Count a yawn once the mouth has been wide open for long enough. */
function countYawns(state, mouth, seconds, { yawn, yawn_seconds: least }) {
  if (mouth < yawn) {
    state.yawnSince = null;
    state.yawned = false;
    return;
  }
  state.yawnSince ??= seconds;
  if (seconds - state.yawnSince >= least && !state.yawned) {
    state.yawned = true;
    state.yawns += 1;
  }
}
