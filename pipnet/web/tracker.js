/** Tracking of faces in a video: the next crop comes from this frame's landmarks, as pipnet/video/track.py. */

import { largestFirst, withoutDuplicates } from "./distinct.js";
import { boxOf, iou } from "./geometry.js";
import { mean } from "./numbers.js";

export class Tracker {
  /** landmarker: of the frames. smooth: a filter of smooth.js. settings: of the page. */
  constructor(landmarker, smooth, settings) {
    this.landmarker = landmarker;
    this.smooth = smooth;
    this.limits = settings.tracker;
    this.every = settings.options.detect_every;
    this.most = settings.options.max_faces ?? Infinity;
    this.tracks = new Map();  // id -> {box, next, score, seconds, lost}
    this.wait = 0;            // frames until the detector runs
    this.ids = 0;             // in use so far
    this.size = "";           // of the last frame
  }

  /** Return the faces of a frame at `seconds`, ordered by id, each with its `id` and smoothed landmarks. */
  async update(frame, seconds) {
    const size = `${frame.width} x ${frame.height}`;
    if (size !== this.size) {  // a place in a frame of another size is another place; a phone is turned
      [this.size, this.wait] = [size, 0];
      this.tracks.clear();
    }
    let tracked = await this.follow(frame);
    const followed = [...this.tracks.values()].filter(({ lost }) => !lost).length;
    if (this.wait <= 0 || tracked.size < followed) {
      tracked = await this.detect(frame, tracked);
      this.wait = this.every;
    }
    this.wait -= 1;
    const smooth = this.smooth.update(tracked, seconds);
    for (const [id, track] of this.tracks) {
      track.lost = !tracked.has(id);
      if (track.lost && seconds - track.seconds > this.limits.memory) this.tracks.delete(id);
    }
    if (!tracked.size || [...this.tracks.values()].some(({ lost }) => lost)) {
      this.wait = Math.min(this.wait, this.limits.retry - 1);
    }
    for (const [id, landmarks] of smooth) {
      const { detected: score } = tracked.get(id), box = boxOf(landmarks), next = this.landmarker.net.boxOf(landmarks);
      this.tracks.set(id, { box, next, score, seconds, lost: false });
    }
    return [...tracked.keys()].sort((a, b) => a - b).map((id) => ({ ...tracked.get(id), landmarks: smooth.get(id), id }));
  }

  /** Return {id: face} of the last frame's faces that crops around their last landmarks still show. */
  async follow(frame) {
    const ids = [...this.tracks].filter(([, { lost, next }]) => !lost && this.shows(next, frame)).map(([id]) => id).sort((a, b) => a - b);
    const boxes = ids.map((id) => this.tracks.get(id)).map(({ next, score }) => ({ box: next, score })), tracked = new Map();
    const faces = await this.landmarker.read(frame, boxes);
    ids.forEach((id, i) => {  // of two tracks of one face the older one stays
      const isNew = overlap(faces[i], tracked.values()) < this.limits.twice;
      if (isNew && !this.isLost(faces[i])) tracked.set(id, faces[i]);
    });
    return tracked;
  }

  /** Return whether the crop of a tracked face shows none. */
  isLost(face) {
    const { net } = this.landmarker, isBlurred = !net.face && !net.face_limit && mean(face.scores) < this.limits.halfway;
    return isBlurred || !this.landmarker.isFace(face);
  }

  /** Return whether a box covers at least a pixel of a frame and gives a crop. */
  shows(box, frame) {
    const [x1, y1, x2, y2] = box, { width, height } = frame;
    return x1 < width - 1 && y1 < height - 1 && x2 > 1 && y2 > 1 && this.landmarker.net.shows(box, frame);
  }

  /** Return the tracked faces, and the new faces that the detector finds. */
  async detect(frame, tracked) {
    const found = await this.landmarker.find(frame), boxes = found.map(({ box }) => box.slice(0, 4));
    const kept = new Map(tracked), { limits } = this;
    const pairs = match([...tracked.values()].map((face) => boxOf(face.landmarks)), boxes, limits.same);
    const used = new Set(pairs.map(([, j]) => j));
    let rest = found.filter((_, j) => !used.has(j)), faces = [];
    const room = this.most - kept.size;
    if (room < rest.length) rest = largestFirst(rest);
    while (rest.length && faces.length < room) {  // the largest ones may show no faces
      const some = rest.splice(0, room - faces.length), known = [...kept.values(), ...faces];
      const shown = await this.landmarker.confirmed(frame, some);
      const more = shown.filter((face) => overlap(face, known) < limits.twice);
      const remain = new Set(withoutDuplicates([...known, ...more], this.landmarker.limits));  // parts of known faces are none
      faces.push(...more.filter((face) => remain.has(face)));
    }
    if (!kept.size && !faces.length) faces = (await this.landmarker.enhancedFaces(frame)).slice(0, this.most);
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
