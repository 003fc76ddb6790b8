/**
 * Faces of a frame: the detector, the crops, the landmark net and its crops around landmarks, as pipnet/landmarker.py.
 *
 * The exported pipeline graph would need none of this, but it detects and crops anew in each frame, which takes almost twice as
 * long as a tracked frame. It also has no 8 bits, expected errors, pose or states.
 */

import { cut, enhanced } from "./crop.js";
import { Detector } from "./detector.js";
import { areaOf, boxOf, carry, centreOf, cropBox, iou, meanOf, shared, similarity, transform, turnAbout, turnedBox }
  from "./geometry.js";
import { clamp, mean } from "./numbers.js";
import { turnPose } from "./pose.js";

/**
 * A face is {box, crop, score, detected, landmarks, scores, sigma, pose, states, visible} in image px and degrees, null for what the
 * net does not predict. crop: the landmark box [x1, y1, x2, y2, angle] that it was found in, whose crop is turned clockwise by the
 * angle and shows the face upright; box: the same, upright. score: the probability that it is a face; detected: the detector's score,
 * which is also the score for a net without the output `face`. `found`: a list of {box, score}, landmark boxes with that score.
 */
export class Landmarker {
  constructor(settings, runtime) {
    this.net = settings.net;
    this.finder = settings.finder;
    this.limits = settings.landmarker;
    this.detector = new Detector(settings.detector, runtime);
    this.most = settings.options.max_faces ?? Infinity;
    this.runtime = runtime;
    this.seconds = { detect: 0, landmarks: 0 };
  }

  /** Return the faces of a picture. If none is sure, the enhanced picture is searched too. */
  async facesOf(frame) {
    const large = this.most < Infinity ? await this.timed("detect", () => this.detector.large(frame)) : null;
    if (large) {
      const faces = await this.largest(frame, this.landmarkBoxes(large, frame));
      if (faces.filter(({ score }) => score >= this.limits.sure).length >= this.most) return faces;  // those in the rest are smaller
    }
    const faces = await this.largest(frame, await this.detect(frame, large));
    if (faces.some(({ score }) => score >= this.limits.sure)) return faces;
    const more = await this.enhancedFaces(frame);
    return more.length ? this.best([...faces, ...more]) : faces;
  }

  /** Return the faces that are found in the enhanced picture, then in the picture itself, since the blur costs accuracy. */
  async enhancedFaces(frame) {
    if (!this.net.face) return [];
    const { least_side: least, larger } = this.limits, clear = enhanced(frame, this.limits);
    const zoom = Math.min(Math.max(least / Math.max(frame.width, frame.height), 1), larger);
    const found = await this.detect(clear), more = zoom > 1 ? await this.detect(clear, null, zoom) : [];
    const faces = await this.confirmed(clear, [...found, ...more]);
    faces.push(...await this.landmarksOf(frame, faces.map((face) => this.next(face, frame))));
    return this.best(faces.filter(({ score }) => score >= this.limits.sure));  // enhanced background looks like a face
  }

  /** Return the faces of landmark boxes; of `most`, those in the largest boxes that show faces. */
  async largest(frame, found) {
    const rest = largestFirst(found);
    let faces = [];
    while (rest.length && faces.length < this.most) {
      const some = rest.splice(0, this.most - faces.length);
      const more = await this.confirmed(frame, found.filter((one) => some.includes(one)));
      faces = faces.length ? bestFirst(withoutDuplicates([...faces, ...more], this.limits)) : more;
    }
    return faces;
  }

  /** Return the faces of landmark boxes, cropped again where their landmarks ask for it. */
  async confirmed(frame, found) {
    const faces = await this.landmarksOf(frame, await this.aimed(frame, found));
    const next = new Map(faces.map((face) => [face, this.next(face, frame)]));
    const far = faces.filter((face) => this.isFar(face.crop, next.get(face).box));
    const again = await this.landmarksOf(frame, far.map((face) => next.get(face)));
    far.forEach((face, i) => Object.assign(face, again[i]));
    return bestFirst(withoutDuplicates(faces.filter((face) => this.isFace(face)), this.limits));
  }

  /** Return the landmark boxes of the faces that the finder sees. Where it is not sure of an upright face, it looks again, turned. */
  async aimed(frame, found) {
    const { finder, limits } = this, whole = found.map(({ box, score }) => ({ box: this.wholeFace(box), score }));
    const faces = await this.landmarksOf(frame, whole, finder);
    const unsure = [...faces.keys()].filter((i) => faces[i].score < limits.sure);
    const tried = limits.quarters.flatMap((degrees) => unsure.map((i) => (
      { box: this.turned(whole[i].box, (degrees * Math.PI) / 180), score: whole[i].score })));
    (await this.landmarksOf(frame, tried, finder)).forEach((face, k) => {
      const before = faces[unsure[k % unsure.length]];
      if (face.score > before.score) Object.assign(before, face);
    });
    const again = await this.landmarksOf(frame, unsure.map((i) => this.next(faces[i], frame, finder)), finder);
    again.forEach((face, k) => Object.assign(faces[unsure[k]], face, { score: Math.max(face.score, faces[unsure[k]].score) }));
    return faces.filter(({ score }) => score >= limits.gate)
      .map((face) => this.next(face, frame, finder)).map(({ box, score }) => ({ box: this.boxRound(box), score }));
  }

  /** Return {box, score} for the next crop of a net's face; if its box would not show the frame, the present one, upright. */
  next({ landmarks, box: present, detected: score }, frame, net = this.net) {
    const box = this.boxOf(landmarks, net);
    return { box: this.shows(box, frame, net) ? box : [...present, 0], score };
  }

  /** Return whether the crops of two landmark boxes of a face differ so much that it is cropped again. */
  isFar(box, other) {
    const { near, near_turn: turn } = this.limits, protocol = { ...this.net.protocol, border: "real" };
    const [one, two] = [box, other].map((some) => cropBox(some.slice(0, 4), protocol, 0, 0));
    const side = Math.max(one[2] - one[0], one[3] - one[1]), off = Math.max(...one.map((edge, i) => Math.abs(two[i] - edge)));
    return Math.cos(other[4] - box[4]) < Math.cos(turn) || off > near * side;
  }

  /** Return whether a result is a face; a net without the output `face` has a least mean landmark score too. */
  isFace({ score, scores }) {
    return score >= this.limits.threshold && mean(scores) >= this.net.face_limit;
  }

  /** Return the landmark boxes of a frame, best first. large, zoom: see `Detector.find`. */
  async detect(frame, large = null, zoom = 1) {
    return this.landmarkBoxes(await this.timed("detect", () => this.detector.find(frame, large, zoom)), frame);
  }

  /** Return the landmark boxes of detections that show a part of a frame, upright. */
  landmarkBoxes(detections, frame) {
    return detections.map(({ box, score }) => ({ box: this.boxRound([...this.fromDetector(box), 0]), score }))
      .filter(({ box }) => this.shows(box, frame));
  }

  /** Return the tight box of the landmarks in a detector's box. */
  fromDetector(box) {
    const [down, wide, high] = this.detector.limits.face_box;
    const [x, y] = centreOf(box), width = (box[2] - box[0]) / 2, height = (box[3] - box[1]) / 2;
    const middle = y + 2 * height * down;
    return [x - width * wide, middle - height * high, x + width * wide, middle + height * high];
  }

  /** Return the landmark box of a face that leans by quarter turns, from that of an upright face in the same detector's box. */
  turned(box, angle) {
    const [down, wide, high] = this.detector.limits.face_box, [x, y] = centreOf(box);
    const half = [(box[2] - box[0]) / 2 / wide, (box[3] - box[1]) / 2 / high], middle = y - 2 * half[1] * down;
    const [across, along] = Math.abs(Math.sin(angle)) > 0.5 ? half.reverse() : half;
    const upright = this.fromDetector([x - across, middle - along, x + across, middle + along]);
    return [...carry(upright, turnAbout([x, middle], angle)), angle];
  }

  /** Return the box for this net's crops from the tight box of a whole face, see `LandmarkNet.boxes_round`. */
  boxRound(tight) {
    if (!this.net.inner) return tight;
    const side = Math.max(tight[2] - tight[0], tight[3] - tight[1]) * this.limits.square_scale, centre = centreOf(tight);
    const box = boxOfCrop(centre, [side, side], this.net.protocol);
    return [...carry(box, turnAbout(centre, tight[4])), tight[4]];
  }

  /** Return the square box of a whole face from an upright box: the inverse of `boxRound`. */
  wholeFace(box) {
    if (!this.net.inner) return box;
    const crop = cropBox(box.slice(0, 4), { ...this.net.protocol, border: "real" }, 0, 0), scale = this.limits.square_scale;
    const side = Math.max(crop[2] - crop[0], crop[3] - crop[1]);
    return [...boxOfCrop(centreOf(crop), [side, side], { scale_x: scale, scale_y: scale, shift_y: 0 }), box[4]];
  }

  /** Return what `work` gives; it counts as time of a stage. */
  async timed(stage, work) {
    const start = performance.now(), made = await work();
    this.seconds[stage] += (performance.now() - start) / 1000;
    return made;
  }

  /** Return the face of each landmark box, as a net sees it; their crops form batches. */
  landmarksOf(frame, found, net = this.net) {
    const { size, border, protocol } = net, run = net === this.net ? this.runtime.landmarks : this.runtime.finder;
    const side = size + 2 * border, form = { size, border, zero: protocol.border === "zero" };
    return this.timed("landmarks", async () => {
      const faces = [];
      for (let first = 0; first < found.length; first += this.limits.most_faces) {
        const part = found.slice(first, first + this.limits.most_faces), images = new Uint8Array(3 * side * side * part.length);
        const crops = part.map(({ box }) => cropBox(box.slice(0, 4), protocol, frame.width, frame.height, box[4]));
        part.forEach(({ box }, i) => cut(frame, crops[i], form, box[4], images, 3 * side * side * i));
        const values = await run({ image: this.runtime.image(images, [part.length, side, side, 3]) });
        part.forEach((one, i) => faces.push(this.faceOf(values, i, crops[i], one, net)));
      }
      return faces;
    });
  }

  /** Return face i of the net's outputs, in image px; of several layouts the landmarks `index`. */
  faceOf(found, i, crop, { box, score }, net = this.net) {
    const { count, index, states } = net, [x1, y1, x2, y2] = crop, angle = box[4];
    const row = (name, length) => [...found[name].data.slice(i * length, (i + 1) * length)];
    const values = row("landmarks", 2 * count), turn = turnAbout(centreOf(crop), angle);
    const upright = index.map((k) => [values[2 * k] * (x2 - x1) + x1, values[2 * k + 1] * (y2 - y1) + y1]);
    const scores = row("score", count), sigma = found.sigma && row("sigma", count);
    const visible = found.visible && row("visible", count);
    const size = Math.sqrt(areaOf(crop)), tight = box.slice(0, 4);
    return {
      box: angle ? turnedBox(tight, angle) : tight,
      crop: box,
      score: found.face ? found.face.data[i] : score,
      detected: score,
      landmarks: angle ? transform(upright, turn) : upright,
      scores: index.map((k) => clamp(scores[k], 0, 1)),
      sigma: sigma ? index.map((k) => sigma[k] * size) : null,
      pose: found.pose ? turnPose(row("pose", 3), angle).map((value) => (value * 180) / Math.PI) : null,
      states: found.states ? Object.fromEntries(row("states", states.length).map((value, k) => [states[k], value])
        .filter(([name]) => name)) : null,
      visible: found.visible ? index.map((k) => visible[k]) : null,
    };
  }

  /** Return the landmark box for the next crop of a face, from the landmarks of a net. */
  boxOf(landmarks, net = this.net) {
    const turn = this.rollOf(landmarks, net), centre = meanOf(landmarks);
    const box = uprightBox(transform(landmarks, turnAbout(centre, -turn)), net);
    return [...carry(box, turnAbout(centre, turn)), turn];
  }

  /** Return whether a landmark box, upright, lies in a frame in part, and gives a crop. */
  shows([x1, y1, x2, y2], { width, height }, { protocol } = this.net) {
    return x1 < width && y1 < height && x2 > 0 && y2 > 0 && cropBox([x1, y1, x2, y2], protocol, width, height) !== null;
  }

  /** Return by how many radians clockwise the crop of a face with these landmarks is turned; small leans stay in the crop. */
  rollOf(landmarks, { meanface }) {
    if (!meanface) return 0;
    const [cosine, , , sine] = similarity(meanface, landmarks), angle = Math.atan2(sine, cosine);
    return angle - clamp(angle, -this.limits.level, this.limits.level);
  }

  /** Return the `most` largest faces, by score. Of faces on or in each other, the one with the highest landmark scores stays. */
  best(faces) {
    const kept = [], { other: most, within } = this.limits, tight = ({ landmarks }) => boxOf(landmarks);
    for (const face of [...faces].sort((one, two) => mean(two.scores) - mean(one.scores))) {
      const isNew = (one) => iou(tight(one), tight(face)) <= most && shared(tight(one), tight(face)) < within;
      if (kept.every(isNew)) kept.push(face);
    }
    kept.sort((one, two) => areaOf(tight(two)) - areaOf(tight(one)));
    return bestFirst(kept.slice(0, this.most));
  }
}

/** Return faces or detections, those with the highest scores first. */
function bestFirst(scored) {
  return [...scored].sort((one, other) => other.score - one.score);
}

/** Return things with a box, the largest ones first. */
export function largestFirst(boxed) {
  return [...boxed].sort((one, other) => areaOf(other.box) - areaOf(one.box));
}

/** Return the faces without those that show another face again, or a part of a face that is larger and not less certain. */
export function withoutDuplicates(faces, { twice, part, within }) {
  const all = faces.map((face) => ({ box: boxOf(face.landmarks), score: mean(face.scores) }));
  const isAgain = (i, j) => iou(all[i].box, all[j].box) >= twice && (all[i].score < all[j].score || j < i);
  const isPart = (i, j) => shared(all[i].box, all[j].box) >= within && areaOf(all[i].box) * part < areaOf(all[j].box);
  const drops = (i, j) => all[i].score <= all[j].score && (isAgain(i, j) || isPart(i, j));
  return faces.filter((_, i) => !all.some((_, j) => drops(i, j)));
}

/** Return the landmark box of an upright face: tight, or placed about the landmarks as training crops about the mean face. */
function uprightBox(landmarks, { meanface, tight, protocol }) {
  if (tight) return boxOf(landmarks);
  const middle = meanOf(landmarks), origin = meanOf(meanface);
  if (protocol.square === "no") {
    const side = [0, 1].map((axis) => deviation(landmarks, axis) / deviation(meanface, axis));
    return boxOfCrop([0, 1].map((axis) => (0.5 - origin[axis]) * side[axis] + middle[axis]), side, protocol);
  }
  const map = similarity(meanface, landmarks), side = Math.hypot(map[0], map[3]);
  return boxOfCrop(transform([[0.5, 0.5]], map)[0], [side, side], protocol);
}

/** Return the box from which a protocol makes the crop with this centre and these sides. */
function boxOfCrop([x, y], [width, height], { scale_x: wide, scale_y: high, shift_y: shift }) {
  const half = [width / (2 * wide), height / (2 * high)], middle = y - (height * shift) / high;
  return [x - half[0], middle - half[1], x + half[0], middle + half[1]];
}

/** Return the standard deviation of points along an axis. */
function deviation(points, axis) {
  const middle = mean(points.map((point) => point[axis]));
  return Math.sqrt(mean(points.map((point) => (point[axis] - middle) ** 2)));
}
