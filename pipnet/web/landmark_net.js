/** A landmark net: its crops, and the faces in them, as pipnet/landmark_net.py. */

import { cut } from "./crop.js";
import { areaOf, boxOf, carry, centreOf, cropBox, meanOf, similarity, transform, turnAbout, turnedBox } from "./geometry.js";
import { clamp, mean } from "./numbers.js";
import { turnPose } from "./pose.js";

/**
 * A landmark box is [x1, y1, x2, y2, angle]: box and crop are turned clockwise by the angle, so that the crop shows the face
 * upright. `found`: a list of {box, score}, landmark boxes with the detector's score.
 */
export class LandmarkNet {
  /** values: of the net in settings.json. limits: constants. run: {image: tensor} -> promise of {output: tensor}. image: makes inputs. */
  constructor(values, limits, run, image) {
    Object.assign(this, values, { limits, run, image });
  }

  /** Return the face in each landmark box of a frame; their crops form batches. */
  async read(frame, found) {
    const { size, border, protocol, limits: { most_faces: most } } = this, side = size + 2 * border, faces = [];
    for (let first = 0; first < found.length; first += most) {
      const some = found.slice(first, first + most), pixels = new Uint8Array(3 * side * side * some.length);
      const crops = some.map(({ box }) => cropBox(box.slice(0, 4), protocol, frame.width, frame.height, box[4]));
      const form = { size, border, zero: protocol.border === "zero" };
      some.forEach(({ box }, i) => cut(frame, crops[i], form, box[4], pixels, 3 * side * side * i));
      const values = await this.run({ image: this.image(pixels, [some.length, side, side, 3]) });
      some.forEach((one, i) => faces.push(this.faceOf(values, i, crops[i], one)));
    }
    return faces;
  }

  /**
   * Return face i of the net's outputs: {box, crop, score, detected, landmarks, scores, sigma, pose, states, visible} in image px and
   * degrees, null for what the net does not predict. crop: the landmark box that it was found in; box: the same, upright. score: the
   * probability that it is a face; detected: the detector's score, which is also the score for a net without the output `face`.
   */
  faceOf(found, i, crop, { box, score }) {
    const { count, states } = this, [x1, y1, x2, y2] = crop, angle = box[4], tight = box.slice(0, 4);
    const row = (name, length) => [...found[name].data.slice(i * length, (i + 1) * length)], values = row("landmarks", 2 * count);
    const upright = Array.from({ length: count }, (_, k) => [values[2 * k] * (x2 - x1) + x1, values[2 * k + 1] * (y2 - y1) + y1]);
    return {
      box: angle ? turnedBox(tight, angle) : tight,
      crop: box,
      score: found.face ? found.face.data[i] : score,
      detected: score,
      landmarks: angle ? transform(upright, turnAbout(centreOf(crop), angle)) : upright,
      scores: row("score", count).map((one) => clamp(one, 0, 1)),
      sigma: found.sigma ? row("sigma", count).map((share) => share * Math.sqrt(areaOf(crop))) : null,
      pose: found.pose ? turnPose(row("pose", 3), angle).map((value) => (value * 180) / Math.PI) : null,
      states: found.states ? Object.fromEntries(row("states", states.length).map((value, k) => [states[k], value])
        .filter(([name]) => name)) : null,
      visible: found.visible ? row("visible", count) : null,
    };
  }

  /** Return {box, score} for the next crop of a face; if its box would not show the frame, the present one, upright. */
  next(frame, { landmarks, box: present, detected: score }) {
    const box = this.boxOf(landmarks);
    return { box: this.shows(box, frame) ? box : [...present, 0], score };
  }

  /** Return the landmark box for the next crop of a face with these landmarks. */
  boxOf(landmarks) {
    const turn = this.rollOf(landmarks), centre = meanOf(landmarks);
    const box = this.uprightBox(transform(landmarks, turnAbout(centre, -turn)));
    return [...carry(box, turnAbout(centre, turn)), turn];
  }

  /** Return by how many radians clockwise the crop of a face with these landmarks is turned; small leans stay in the crop. */
  rollOf(landmarks) {
    if (!this.meanface) return 0;
    const [cosine, , , sine] = similarity(this.meanface, landmarks), angle = Math.atan2(sine, cosine);
    return angle - clamp(angle, -this.limits.level, this.limits.level);
  }

  /** Return the landmark box of an upright face: tight, or placed about the landmarks as training crops about the mean face. */
  uprightBox(landmarks) {
    const { meanface, tight, protocol } = this;
    if (tight) return boxOf(landmarks);
    const middle = meanOf(landmarks), origin = meanOf(meanface);
    if (protocol.square === "no") {
      const side = [0, 1].map((axis) => deviation(landmarks, axis) / deviation(meanface, axis));
      return boxOfCrop([0, 1].map((axis) => (0.5 - origin[axis]) * side[axis] + middle[axis]), side, protocol);
    }
    const map = similarity(meanface, landmarks), side = Math.hypot(map[0], map[3]);
    return boxOfCrop(transform([[0.5, 0.5]], map)[0], [side, side], protocol);
  }

  /** Return whether a landmark box, upright, lies in a frame in part, and gives a crop. */
  shows([x1, y1, x2, y2], { width, height }) {
    return x1 < width && y1 < height && x2 > 0 && y2 > 0 && cropBox([x1, y1, x2, y2], this.protocol, width, height) !== null;
  }

  /** Return whether the crops of two landmark boxes of a face differ so much that it is cropped again. */
  isFar(box, other) {
    const { near, near_turn: turn } = this.limits, [one, two] = [box, other].map((some) => this.wholeCrop(some));
    const side = Math.max(one[2] - one[0], one[3] - one[1]), off = Math.max(...one.map((edge, i) => Math.abs(two[i] - edge)));
    return Math.cos(other[4] - box[4]) < Math.cos(turn) || off > near * side;
  }

  /** Return the upright crop of a landmark box, whatever of it lies outside the frame. */
  wholeCrop(box) {
    return cropBox(box.slice(0, 4), { ...this.protocol, border: "real" }, 0, 0);
  }

  /** Return the box for this net's crops from the tight box of a whole face, see `LandmarkNet.boxes_round`. */
  boxRound(tight) {
    if (!this.inner) return tight;
    const side = Math.max(tight[2] - tight[0], tight[3] - tight[1]) * this.limits.square_scale, centre = centreOf(tight);
    return [...carry(boxOfCrop(centre, [side, side], this.protocol), turnAbout(centre, tight[4])), tight[4]];
  }

  /** Return the square box of a whole face from an upright box: the inverse of `boxRound`. */
  wholeFace(box) {
    if (!this.inner) return box;
    const crop = this.wholeCrop(box), scale = this.limits.square_scale, side = Math.max(crop[2] - crop[0], crop[3] - crop[1]);
    return [...boxOfCrop(centreOf(crop), [side, side], { scale_x: scale, scale_y: scale, shift_y: 0 }), box[4]];
  }
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
