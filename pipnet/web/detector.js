/** Boxes of the faces in a frame, as pipnet/detector.py finds them. */

import { resized, toBgr } from "./crop.js";
import { bestFirst } from "./distinct.js";
import { areaOf, carry, centreOf, iou, shared, turnAbout } from "./geometry.js";

/** A detection is {box, score}, its box in px of the frame. */
export class Detector {
  /** limits: threshold, overlap and constants. runtime: of runtime.js. */
  constructor(limits, runtime) {
    this.limits = limits;
    this.runtime = runtime;
  }

  /** Return the detections in a frame that is enlarged by `zoom`, best first. large: those that `large` found in it, if known. */
  async find(frame, large = null, zoom = 1) {
    const scale = zoom * this.scaleOf(frame), found = await this.look(toBgr(frame, scale), scale);
    return joined(large ?? await this.large(frame, zoom), found, this.limits);
  }

  /** Return the faces that fill a good part of a frame, found in a small picture of it; none if the frame is hardly larger. */
  async large(frame, zoom = 1) {
    const { width, height } = frame, { large_side: side, large_face: least } = this.limits;
    if ((1.5 * side) / Math.max(width, height) > zoom * this.scaleOf(frame)) return [];
    const scale = Math.max(side / Math.max(width, height), 1 / Math.min(width, height));
    const found = await this.look(resized(frame, scale), scale);
    return found.filter(({ box }) => Math.sqrt(areaOf(box)) * scale >= least);
  }

  /** Return the detections in a picture {data, width, height} in BGR, in px of the frame that was resized by `scale` to it. */
  async look({ data, width, height }, scale) {
    const { runtime, limits: { threshold, overlap } } = this;
    const { boxes, scores } = await runtime.detector({ image: runtime.image(data, [height, width, 3]),
      threshold: runtime.number(threshold), overlap: runtime.number(overlap) });
    return [...scores.data].map((score, i) => ({ box: [...boxes.data.slice(4 * i, 4 * i + 4)].map((x) => x / scale), score }));
  }

  /** Return the tight box of the landmarks in a detector's box. */
  landmarkBox(box) {
    const [down, wide, high] = this.limits.face_box;
    const [x, y] = centreOf(box), width = (box[2] - box[0]) / 2, height = (box[3] - box[1]) / 2;
    const middle = y + 2 * height * down;
    return [x - width * wide, middle - height * high, x + width * wide, middle + height * high];
  }

  /** Return the landmark box of a face that leans by quarter turns, from that of an upright face in the same detector's box. */
  turned(box, angle) {
    const [down, wide, high] = this.limits.face_box, [x, y] = centreOf(box);
    const half = [(box[2] - box[0]) / 2 / wide, (box[3] - box[1]) / 2 / high], middle = y - 2 * half[1] * down;
    const [across, along] = Math.abs(Math.sin(angle)) > 0.5 ? half.reverse() : half;
    const upright = this.landmarkBox([x - across, middle - along, x + across, middle + along]);
    return [...carry(upright, turnAbout([x, middle], angle)), angle];
  }

  /** Return the factor by which a frame is resized for the detector. */
  scaleOf({ width, height }) {
    const { short_side: side, most_pixels: most } = this.limits, short = Math.min(width, height);
    return Math.max(Math.min(1, side / short, Math.sqrt(most / (width * height))), 1 / short);
  }
}

/** Return both lists, best first, without those of `found` that show a large face again, or a part of one that is as certain. */
export function joined(large, found, { overlap, within }) {
  const isNew = ({ box, score }) => large.every((face) => iou(box, face.box) <= overlap
    && (shared(box, face.box) < within || score > face.score));
  return bestFirst([...large, ...found.filter(isNew)]);
}
