/**
 * The steps from a frame to its faces, as pipnet/chain.py: find, aim, read, again, distinct.
 *
 * The exported pipeline graph would need none of this, but it detects and crops anew in each frame, which takes almost twice as
 * long as a tracked frame. It also has no 8 bits, expected errors, pose or states.
 */

import { enhanced } from "./crop.js";
import { Detector } from "./detector.js";
import { distinct, largest, largestFirst } from "./distinct.js";
import { LandmarkNet } from "./landmark_net.js";
import { mean } from "./numbers.js";

export class Landmarker {
  constructor(settings, runtime) {
    this.limits = settings.landmarker;
    this.net = new LandmarkNet(settings.net, this.limits, runtime.landmarks, runtime.image);
    this.finder = settings.finder && new LandmarkNet(settings.finder, this.limits, runtime.finder, runtime.image);
    this.detector = new Detector(settings.detector, runtime);
    this.most = settings.options.max_faces ?? Infinity;
    this.seconds = { detect: 0, landmarks: 0 };
  }

  /** Return the faces of a picture. If none is sure, the enhanced picture is searched too. */
  async facesIn(frame) {
    const isSure = ({ score }) => score >= this.limits.sure;
    const large = this.most < Infinity ? await this.timed("detect", () => this.detector.large(frame)) : null;
    if (large) {
      const faces = await this.inLargest(frame, this.landmarkBoxes(frame, large));
      if (faces.filter(isSure).length >= this.most) return faces;  // those in the rest are smaller
    }
    const faces = await this.inLargest(frame, await this.find(frame, large));
    const more = faces.some(isSure) ? [] : await this.enhancedFaces(frame);
    return more.length ? largest([...faces, ...more], this.most, this.limits) : faces;
  }

  /** Return the faces of landmark boxes; of `most`, those in the largest boxes that show faces. */
  async inLargest(frame, found) {
    const rest = largestFirst(found);
    let faces = [];
    while (rest.length && faces.length < this.most) {
      const some = rest.splice(0, this.most - faces.length);
      const more = await this.confirmed(frame, found.filter((one) => some.includes(one)));
      faces = distinct([...faces, ...more], this.limits);
    }
    return faces;
  }

  /** Return the faces that are found in the enhanced picture, then in the picture itself, since the blur costs accuracy. */
  async enhancedFaces(frame) {
    if (!this.net.face) return [];
    const { least_side: least, larger, sure } = this.limits, clear = enhanced(frame, this.limits);
    const zoom = Math.min(Math.max(least / Math.max(frame.width, frame.height), 1), larger);
    const found = await this.find(clear), more = zoom > 1 ? await this.find(clear, null, zoom) : [];
    const faces = await this.confirmed(clear, [...found, ...more]);
    faces.push(...await this.read(frame, faces.map((face) => this.net.next(frame, face))));
    return largest(faces.filter(({ score }) => score >= sure), this.most, this.limits);  // enhanced background looks like a face
  }

  /** Return the faces of landmark boxes, best first: only those that `isFace` confirms. */
  async confirmed(frame, found) {
    const boxes = this.finder ? await this.aim(frame, found) : found;
    const faces = await this.again(frame, await this.read(frame, boxes));
    return distinct(faces.filter((face) => this.isFace(face)), this.limits);
  }

  /** Return the landmark boxes of a frame, best first. large, zoom: see `Detector.find`. */
  async find(frame, large = null, zoom = 1) {
    return this.landmarkBoxes(frame, await this.timed("detect", () => this.detector.find(frame, large, zoom)));
  }

  /** Return the landmark boxes of detections that show a part of a frame, upright. */
  landmarkBoxes(frame, detections) {
    return detections.map(({ box, score }) => ({ box: this.net.boxRound([...this.detector.landmarkBox(box), 0]), score }))
      .filter(({ box }) => this.net.shows(box, frame));
  }

  /** Return the landmark boxes of the faces that the finder sees. Where it is not sure of an upright face, it looks again, turned. */
  async aim(frame, found) {
    const { net, finder, limits } = this, whole = found.map(({ box, score }) => ({ box: net.wholeFace(box), score }));
    const faces = await this.read(frame, whole, finder);
    const unsure = [...faces.keys()].filter((i) => faces[i].score < limits.sure);
    const turned = limits.quarters.flatMap((degrees) => unsure.map((i) => (
      { box: this.detector.turned(whole[i].box, (degrees * Math.PI) / 180), score: whole[i].score })));
    (await this.read(frame, turned, finder)).forEach((face, k) => {
      const before = faces[unsure[k % unsure.length]];
      if (face.score > before.score) Object.assign(before, face);
    });
    const again = await this.read(frame, unsure.map((i) => finder.next(frame, faces[i])), finder);
    again.forEach((face, k) => Object.assign(faces[unsure[k]], face, { score: Math.max(face.score, faces[unsure[k]].score) }));
    return faces.filter(({ score }) => score >= limits.gate).map((face) => finder.next(frame, face))
      .map(({ box, score }) => ({ box: net.boxRound(box), score }));
  }

  /** Return the face in each landmark box, as a net sees it. */
  read(frame, found, net = this.net) {
    return this.timed("landmarks", () => net.read(frame, found));
  }

  /** Return the faces, read once more where their landmarks lead to another crop. */
  async again(frame, faces) {
    const next = new Map(faces.map((face) => [face, this.net.next(frame, face)]));
    const far = faces.filter((face) => this.net.isFar(face.crop, next.get(face).box));
    (await this.read(frame, far.map((face) => next.get(face)))).forEach((face, i) => Object.assign(far[i], face));
    return faces;
  }

  /** Return whether a result is a face; a net without the output `face` has a least mean landmark score too. */
  isFace({ score, scores }) {
    return score >= this.limits.threshold && mean(scores) >= this.net.face_limit;
  }

  /** Return what `work` gives; it counts as time of a stage. */
  async timed(stage, work) {
    const start = performance.now(), result = await work();
    this.seconds[stage] += (performance.now() - start) / 1000;
    return result;
  }
}
