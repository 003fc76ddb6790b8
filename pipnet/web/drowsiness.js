/** Drowsiness from landmarks: how open eyes and mouth are, blinks, yawns, closed eyes, as pipnet/app/drowsiness.py. */

import { distance } from "./geometry.js";
import { mean, median, quantile } from "./numbers.js";

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
    const open = openness(state, ears, weights, seconds, settings);
    let closed = open < settings.closed;
    if (states && settings.eye_states.every((name) => name in states)) {
      closed = weighted(settings.eye_states.map((name) => states[name]), weights) > 0.5;
    }
    countClosed(state, ears, closed, seconds, settings);
    countBlinks(state, weighted(ears, weights), weighted(state.baseline, weights), seconds, settings);
    if (mouth !== null) countYawns(state, mouth, seconds, settings);
    const perclos = state.closedFrames / state.eyes.length;
    let alarm = null;
    if (state.closedSince !== null && seconds - state.closedSince >= settings.alarm_closed) alarm = "eyes closed";
    else if (perclos >= settings.alarm_perclos && seconds - state.eyes[0].seconds >= settings.window / 3) alarm = "perclos";
    return { ear_left: ears[0], ear_right: ears[1], mouth, open, closed: state.closedSince !== null, perclos, blinks: state.blinks,
      blink_seconds: state.blinkSeconds, yawns: state.yawns, alarm };
  }
}

function newState() {
  return { seconds: -Infinity, eyes: [], recent: [], baseline: [1, 1], rebase: -Infinity, closedFrames: 0, closedSince: null,
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

/** Return the weighted mean of both aspect ratios over those of the open eyes, which it updates. */
function openness(state, ears, weights, seconds, { baseline, rebase }) {
  if (seconds >= state.rebase) {
    state.baseline = ears.map((ear, eye) => Math.max(quantile([...state.eyes.map((one) => one.ears[eye]), ear], baseline), 1e-6));
    state.rebase = seconds + rebase;
  }
  return weighted(ears.map((ear, eye) => ear / state.baseline[eye]), weights);
}

/** Update the window and the time since when the eyes are closed. */
function countClosed(state, ears, closed, seconds, { window }) {
  state.closedSince = closed ? state.closedSince ?? seconds : null;
  state.eyes.push({ seconds, ears, closed });
  state.closedFrames += closed;
  while (state.eyes[0].seconds < seconds - window) state.closedFrames -= state.eyes.shift().closed;
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
