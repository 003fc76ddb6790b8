/** Tracking of faces in a video: the next crop comes from this frame's landmarks, as pipnet/video/track.py. */

import { boxOf, iou } from "./geometry.js";
import { largestFirst, withoutDuplicates } from "./landmarker.js";
import { mean } from "./numbers.js";

export class Tracker {
  /** landmarker: of the frames. smooth: a filter of smooth.js. settings: of the page. */
  constructor(landmarker, smooth, settings) {
    this.landmarker = landmarker;
    this.smooth = smooth;
    this.limits = settings.tracker;
    this.every = settings.options.detect_every;
    this.most = settings.options.max_faces ?? Infinity;
    this.tracks = new Map();  // id -> {box, next, score, seconds, shown, lost}
    this.wait = 0;            // frames until the detector runs
    this.ids = 0;             // in use so far
    this.size = "";           // of the last frame
  }

  /** Return the faces of a frame at `seconds`, ordered by id, each with its `id`, its face score and smoothed landmarks. */
  async update(frame, seconds) {
    const size = `${frame.width} x ${frame.height}`;
    if (size !== this.size) {  // a place in a frame of another size is another place; a phone is turned
      [this.size, this.wait] = [size, 0];
      this.tracks.clear();
    }
    let tracked = await this.follow(frame);
    const { least_score: least } = this.limits;
    const falls = [...tracked].some(([id, { score }]) => score < least && this.tracks.get(id).score >= least);
    const detects = this.wait <= 0 || falls;
    if (detects) {
      tracked = await this.detect(frame, tracked);
      this.wait = this.every;
    }
    this.wait -= 1;
    const smooth = this.smooth.update(tracked, seconds);
    for (const [id, track] of this.tracks) {
      track.lost = !tracked.has(id);
      if (track.lost && seconds - track.seconds > this.limits.memory) this.tracks.delete(id);
    }
    if (!tracked.size || [...this.tracks.values()].some(({ lost }) => lost) || [...tracked.values()].some(({ score }) => score < least)) {
      this.wait = Math.min(this.wait, this.limits.retry - 1);
    }
    for (const [id, landmarks] of smooth) {
      const { score } = tracked.get(id), before = this.tracks.get(id);
      const shown = score >= least || Boolean(before && (before.shown || detects));
      this.tracks.set(id, { box: boxOf(landmarks), next: this.landmarker.boxOf(landmarks), score, seconds, shown, lost: false });
    }
    const ids = [...tracked.keys()].filter((id) => this.tracks.get(id).shown).sort((a, b) => a - b);
    return ids.map((id) => ({ ...tracked.get(id), landmarks: smooth.get(id), id }));
  }

  /** Return {id: face} of the last frame's faces, found in crops around their last landmarks. */
  async follow(frame) {
    const ids = [...this.tracks].filter(([, { lost, next }]) => !lost && this.shows(next, frame)).map(([id]) => id).sort((a, b) => a - b);
    const boxes = ids.map((id) => ({ box: this.tracks.get(id).next, score: NaN })), tracked = new Map();
    const faces = this.scored(await this.landmarker.landmarksOf(frame, boxes));
    ids.forEach((id, i) => {  // of two tracks of one face the older one stays
      if (overlap(faces[i], tracked.values()) < this.limits.twice) tracked.set(id, faces[i]);
    });
    return tracked;
  }

  /** Return whether a box covers at least a pixel of a frame and gives a crop. */
  shows(box, frame) {
    const [x1, y1, x2, y2] = box, { width, height } = frame;
    return x1 < width - 1 && y1 < height - 1 && x2 > 1 && y2 > 1 && this.landmarker.shows(box, frame);
  }

  /** Return the faces with their face scores: probabilities that their crops show faces. */
  scored(faces) {
    const { face_limit: limit } = this.landmarker.net, { step } = this.limits;
    return faces.map((face) => ({ ...face, score: 1 / (1 + Math.exp((limit - mean(face.scores)) / step)) }));
  }

  /** Return the tracked faces that the detector or their face score confirms, and the new faces that the detector finds. */
  async detect(frame, tracked) {
    const found = await this.landmarker.detect(frame), boxes = found.map(({ box }) => box.slice(0, 4));
    const ids = [...tracked.keys()], { limits } = this;
    const pairs = match([...tracked.values()].map((face) => boxOf(face.landmarks)), boxes, limits.same);
    const places = new Map(pairs.map(([i, j]) => [ids[i], j]));
    const isConfirmed = (face, j) => j !== undefined && this.landmarker.isFace({ ...face, score: found[j].score }, boxes[j]);
    const kept = new Map([...tracked].filter(([id, face]) => face.score >= limits.least_score || isConfirmed(face, places.get(id))));
    const used = new Set(places.values());
    let rest = found.filter((_, j) => !used.has(j)), faces = [];
    const room = this.most - kept.size;
    if (room < rest.length) rest = largestFirst(rest);
    while (rest.length && faces.length < room) {  // the largest ones may show no faces
      const some = rest.splice(0, room - faces.length), known = [...kept.values(), ...faces];
      const shown = this.scored(await this.landmarker.confirmed(frame, some));
      const more = shown.filter((face) => overlap(face, known) < limits.twice);
      const remain = new Set(withoutDuplicates([...known, ...more], this.landmarker.limits));  // parts of known faces are none
      faces.push(...more.filter((face) => remain.has(face)));
    }
    if (!kept.size && !faces.length) faces = this.scored(await this.landmarker.enhancedFaces(frame)).slice(0, this.most);
    const lost = [...this.tracks.keys()].filter((id) => !kept.has(id));
    const again = match(lost.map((id) => this.tracks.get(id).box), faces.map((face) => boxOf(face.landmarks)), limits.again);
    faces.forEach((face, j) => {
      const pair = again.find(([, place]) => place === j);
      kept.set(pair ? lost[pair[0]] : this.ids++, face);
    });
    return kept;
  }
}

/** Return the largest IoU of a face with others, 0 without others. */
function overlap(face, others) {
  return Math.max(0, ...[...others].map((other) => iou(boxOf(face.landmarks), boxOf(other.landmarks))));
}

/** Return pairs [i, j] of boxes and others with an IoU of at least `least`. Each box is used once, best pairs first. */
function match(boxes, others, least) {
  const all = boxes.flatMap((box, i) => others.map((other, j) => ({ i, j, shared: iou(box, other) })));
  const pairs = [];
  for (const { i, j, shared } of all.sort((one, other) => other.shared - one.shared)) {
    if (shared >= least && !pairs.some(([a, b]) => a === i || b === j)) pairs.push([i, j]);
  }
  return pairs;
}
