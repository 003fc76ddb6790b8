/**
 * Faces of a frame: the detector, the crops, the landmark net and its crops around landmarks, as pipnet/landmarker.py.
 *
 * The exported pipeline graph would need none of this, but it detects and crops anew in each frame, which takes almost twice as
 * long as a tracked frame. It also has no 8 bits, expected errors, pose or states.
 */

import { cut } from "./crop.js";
import { Detector } from "./detector.js";
import { areaOf, boxOf, carry, centreOf, cropBox, iou, meanOf, shared, similarity, transform, turnAbout, turnedBox }
  from "./geometry.js";
import { clamp, mean } from "./numbers.js";
import { turnPose } from "./pose.js";
import { search } from "./search.js";

/**
 * A face is {box, score, landmarks, scores, sigma, pose, states} in image px and degrees, null for what the net does not predict.
 *
 * A landmark box is [x1, y1, x2, y2, angle]: its crop is turned clockwise by the angle and shows the face upright.
 */
export class Landmarker {
  constructor(settings, runtime) {
    this.net = settings.net;
    this.limits = settings.landmarker;
    this.detector = new Detector(settings.detector, runtime);
    this.searched = settings.search;
    this.most = settings.options.max_faces ?? Infinity;
    this.runtime = runtime;
    this.seconds = { detect: 0, landmarks: 0 };
    this.crops = 0;  // that the landmark net has seen so far
  }

  /** Return the faces of a picture. If none is sure, the picture is also searched turned and enhanced. */
  async facesOf(frame) {
    const large = this.most < Infinity ? await this.detector.large(frame) : null;
    if (large) {
      const faces = await this.largest(frame, await this.detected(frame, () => large));
      if (faces.filter((face) => this.isSure(face)).length >= this.most) return faces;  // those in the rest are smaller
    }
    return search(this, frame, await this.largest(frame, await this.detect(frame, large)));
  }

  /** Return the faces of landmark boxes {box, score}; of `most`, those in the largest boxes that show faces. */
  async largest(frame, found) {
    let rest = largestFirst(found), faces = [];
    while (rest.length && faces.length < this.most) {
      const first = new Set(rest.slice(0, this.most - faces.length));
      rest = rest.filter((one) => !first.has(one));
      const more = await this.refined(frame, found.filter((one) => first.has(one)));
      faces = faces.length ? apart([...faces, ...more], this.limits).sort((one, other) => other.score - one.score) : more;
    }
    return faces;
  }

  /**
   * Return the faces of landmark boxes {box, score}. Those that are unsure or far from the box are cropped again.
   *
   * close: all faces are cropped again, as closely as those that lean.
   */
  async refined(frame, found, close = false) {
    const used = found.map(({ box }) => box), scores = found.map(({ score }) => score);
    const faces = await this.landmarksOf(frame, used, scores);
    const turning = !close && !this.net.inner, first = [...used], shown = faces.map((face, i) => this.isFace(face, first[i]));
    if (turning) await this.turn(frame, faces, used, first, (i) => !shown[i]);  // others are cropped again before that
    let moving = faces.map((_, i) => i);
    for (let crop = 0; crop < this.limits.most_crops; crop++) {
      if (crop === 1 && turning) await this.turn(frame, faces, used, first, (i) => shown[i]);
      const again = new Map(moving.map((i) => [i, this.nextBox(faces[i], frame)]));
      const due = (i) => this.isFar(used[i], again.get(i), close) || (!crop && (close || !this.isSure(faces[i])));
      const likely = (i) => (crop < this.limits.few_crops && !close) || this.isFace(faces[i], first[i]);
      moving = moving.filter((i) => due(i) && likely(i));
      if (!moving.length) break;
      const moved = await this.landmarksOf(frame, moving.map((i) => again.get(i)), moving.map((i) => scores[i]));
      moving.forEach((i, k) => { [used[i], faces[i]] = [again.get(i), moved[k]]; });
    }
    return apart(faces.filter((face, i) => this.isFace(face, first[i])), this.limits);
  }

  /** Return the landmark box for the next crop of a face; if that would not show the frame, the present one, upright. */
  nextBox(face, frame) {
    const box = this.boxOf(face.landmarks);
    return this.shows(box, frame) ? box : [...face.box, 0];
  }

  /** Replace the unsure ones of the faces that `isTried`, and their boxes, by the best quarter turn of their `first` boxes. */
  async turn(frame, faces, boxes, first, isTried) {
    const unsure = faces.map((_, i) => i).filter((i) => isTried(i) && !this.isSure(faces[i]));
    if (!unsure.length) return;
    const tries = this.limits.quarters.flatMap((degrees) => unsure.map((i) => ({ i, box: this.turned(first[i], degrees / 90) })))
      .filter(({ box }) => this.shows(box, frame));
    const found = await this.landmarksOf(frame, tries.map(({ box }) => box), tries.map(({ i }) => faces[i].score));
    tries.forEach(({ i, box }, k) => {
      if (mean(found[k].scores) > mean(faces[i].scores)) [faces[i], boxes[i]] = [found[k], box];
    });
  }

  /** Return whether the crop of a landmark box lies too far from that of the next one, which is closer if the face leans. */
  isFar(box, other, close) {
    const { near_turn: turn } = this.limits, protocol = { ...this.net.protocol, border: "real" };
    const near = close || Math.cos(other[4]) < Math.cos(turn) ? this.limits.near_leaning : this.limits.near;
    const [one, two] = [box, other].map((some) => cropBox(some.slice(0, 4), protocol, 0, 0, 0));
    const side = Math.max(one[2] - one[0], one[3] - one[1]), off = Math.max(...one.map((edge, i) => Math.abs(two[i] - edge)));
    return off > near * side || Math.cos(other[4] - box[4]) < Math.cos(turn);
  }

  /** Return whether a face is certain enough to be cropped once, and not to be searched in the turned frame. */
  isSure({ sigma, scores, landmarks }) {
    const most = this.net.sure_error * Math.sqrt(areaOf(boxOf(landmarks)));
    return mean(scores) >= this.net.sure && (!sigma || mean(sigma) <= most);
  }

  /**
   * Return whether the landmark scores confirm a detection, whose landmark box is `box`.
   *
   * The surer the detector is, the lower they may be, unless the landmarks lie beside that box.
   */
  isFace({ score, scores, landmarks }, box) {
    const least = this.net.face_least, { trust, surest } = this.detector.limits, sure = Math.min(score, surest);
    if (mean(scores) >= least || !(score > 0.5)) return mean(scores) >= least;  // NaN: there was no detector
    return mean(scores) >= least - trust * Math.log(sure / (1 - sure)) * (1 - least)
      && iou(boxOf(landmarks), box.slice(0, 4)) >= this.limits.beside;
  }

  /** Return landmark boxes with the detector's scores, {box, score}, best first. large: see `Detector.find`. */
  detect(frame, large = null) {
    return this.detected(frame, () => this.detector.find(frame, large));
  }

  /** Return the same boxes for a picture in which `find` finds the faces. */
  async detected(picture, find) {
    const start = performance.now();
    const found = (await find(picture)).map(({ box, score }) => ({ box: [...this.fromDetector(box), 0], score }))
      .filter(({ box }) => this.shows(box, picture));
    this.seconds.detect += (performance.now() - start) / 1000;
    return found;
  }

  /** Return the landmark box (4) of a detector's box. */
  fromDetector(box) {
    const [down, wide, high] = this.detector.limits.face_box;
    const [x, y] = centreOf(box), width = (box[2] - box[0]) / 2, height = (box[3] - box[1]) / 2;
    const middle = y + 2 * height * down;
    const tight = [x - width * wide, middle - height * high, x + width * wide, middle + height * high];
    if (!this.net.inner) return tight;
    const side = Math.max(tight[2] - tight[0], tight[3] - tight[1]) * this.limits.square_scale;  // as of the whole face
    return this.boxOfCrop(centreOf(tight), [side, side]);
  }

  /** Return the landmark box of a face that leans by quarter turns, from that of an upright face in the same detector's box. */
  turned(box, quarters) {
    const [down, wide, high] = this.detector.limits.face_box, [x, y] = centreOf(box);
    const half = [(box[2] - box[0]) / 2 / wide, (box[3] - box[1]) / 2 / high], middle = y - 2 * half[1] * down;
    const [across, along] = quarters % 2 ? half.reverse() : half, angle = (quarters * Math.PI) / 2;
    const upright = this.fromDetector([x - across, middle - along, x + across, middle + along]);
    return [...carry(upright, turnAbout([x, middle], angle)), angle];
  }

  /** Return the faces of landmark boxes; their crops form batches. */
  async landmarksOf(frame, boxes, scores) {
    const start = performance.now(), { size, border, protocol } = this.net, side = size + 2 * border, faces = [];
    const crops = boxes.map((box) => cropBox(box.slice(0, 4), protocol, frame.width, frame.height, box[4]));
    const { most_faces: most } = this.limits;
    for (let first = 0; first < boxes.length; first += most) {
      const part = crops.slice(first, first + most), images = new Uint8Array(3 * side * side * part.length);
      const form = { size, border, zero: protocol.border === "zero" };
      part.forEach((crop, i) => cut(frame, crop, form, boxes[first + i][4], images, 3 * side * side * i));
      this.crops += part.length;
      const found = await this.runtime.landmarks({ image: this.runtime.image(images, [part.length, side, side, 3]) });
      part.forEach((crop, i) => faces.push(this.faceOf(found, i, crop, boxes[first + i], scores[first + i])));
    }
    this.seconds.landmarks += (performance.now() - start) / 1000;
    return faces;
  }

  /** Return face i of the net's outputs, in image px; of several layouts the landmarks `index`. */
  faceOf(found, i, crop, box, score) {
    const { count, index } = this.net, [x1, y1, x2, y2] = crop, angle = box[4];
    const row = (name, length) => [...found[name].data.slice(i * length, (i + 1) * length)];
    const values = row("landmarks", 2 * count), turn = turnAbout(centreOf(crop), angle);
    const upright = index.map((k) => [values[2 * k] * (x2 - x1) + x1, values[2 * k + 1] * (y2 - y1) + y1]);
    const scores = row("score", count), sigma = found.sigma && row("sigma", count);
    const size = Math.sqrt(areaOf(crop)), tight = box.slice(0, 4), { states } = this.net;
    return {
      box: angle ? turnedBox(tight, angle) : tight,
      score,
      landmarks: angle ? transform(upright, turn) : upright,
      scores: index.map((k) => clamp(scores[k], 0, 1)),
      sigma: sigma ? index.map((k) => sigma[k] * size) : null,
      pose: found.pose ? turnPose(row("pose", 3), angle).map((value) => (value * 180) / Math.PI) : null,
      states: found.states ? Object.fromEntries(row("states", states.length).map((value, k) => [states[k], value])
        .filter(([name]) => name)) : null,
    };
  }

  /** Return the landmark box for the next crop of a face, from its landmarks. */
  boxOf(landmarks) {
    const turn = this.rollOf(landmarks), centre = meanOf(landmarks);
    const box = this.uprightBox(transform(landmarks, turnAbout(centre, -turn)));
    return [...carry(box, turnAbout(centre, turn)), turn];
  }

  /** Return the landmark box of an upright face: tight, or placed about the landmarks as training crops about the mean face. */
  uprightBox(landmarks) {
    const { meanface, tight, protocol } = this.net;
    if (tight) return boxOf(landmarks);
    const middle = meanOf(landmarks), origin = meanOf(meanface);
    if (protocol.square === "no") {
      const side = [0, 1].map((axis) => deviation(landmarks, axis) / deviation(meanface, axis));
      return this.boxOfCrop([0, 1].map((axis) => (0.5 - origin[axis]) * side[axis] + middle[axis]), side);
    }
    const map = similarity(meanface, landmarks), side = Math.hypot(map[0], map[3]);
    return this.boxOfCrop(transform([[0.5, 0.5]], map)[0], [side, side]);
  }

  /** Return the box from which the protocol makes the crop with this centre and these sides. */
  boxOfCrop([x, y], [width, height]) {
    const { scale_x: wide, scale_y: high, shift_y: shift } = this.net.protocol;
    const half = [width / (2 * wide), height / (2 * high)], middle = y - (height * shift) / high;
    return [x - half[0], middle - half[1], x + half[0], middle + half[1]];
  }

  /** Return whether a landmark box, upright, lies in a frame in part, and gives a crop. */
  shows([x1, y1, x2, y2], { width, height }) {
    return x1 < width && y1 < height && x2 > 0 && y2 > 0 && cropBox([x1, y1, x2, y2], this.net.protocol, width, height) !== null;
  }

  /** Return by how many radians clockwise the crop of a face with these landmarks is turned; small leans stay in the crop. */
  rollOf(landmarks) {
    if (!this.net.meanface) return 0;
    const [cosine, , , sine] = similarity(this.net.meanface, landmarks), angle = Math.atan2(sine, cosine);
    return angle - clamp(angle, -this.limits.level, this.limits.level);
  }
}

/** Return things with a box, the largest ones first. */
export function largestFirst(boxed) {
  return [...boxed].sort((one, other) => areaOf(other.box) - areaOf(one.box));
}

/** Return the faces without those that show another face again, or a part of a face that is larger and not less certain. */
export function apart(faces, { same, part, within }) {
  const all = faces.map((face) => ({ box: boxOf(face.landmarks), score: mean(face.scores) }));
  const isAgain = (i, j) => iou(all[i].box, all[j].box) >= same && (all[i].score < all[j].score || j < i);
  const isPart = (i, j) => shared(all[i].box, all[j].box) >= within && areaOf(all[i].box) * part < areaOf(all[j].box);
  const drops = (i, j) => all[i].score <= all[j].score && (isAgain(i, j) || isPart(i, j));
  return faces.filter((_, i) => !all.some((_, j) => drops(i, j)));
}

/** Return the standard deviation of points along an axis. */
function deviation(points, axis) {
  const middle = mean(points.map((point) => point[axis]));
  return Math.sqrt(mean(points.map((point) => (point[axis] - middle) ** 2)));
}
