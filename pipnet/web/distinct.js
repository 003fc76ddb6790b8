/** Which of several results show the same face, as pipnet/distinct.py. */

import { areaOf, boxOf, iou, shared } from "./geometry.js";
import { mean } from "./numbers.js";

/** Return the faces, best first, without those that show another face again, or a part of a larger one that is not less certain. */
export function distinct(faces, limits) {
  return bestFirst(withoutDuplicates(faces, limits));
}

/** Return the faces of `distinct` in the order in which they are given. */
export function withoutDuplicates(faces, { twice, part, within }) {
  const all = faces.map((face) => ({ box: boxOf(face.landmarks), score: mean(face.scores) }));
  const isAgain = (i, j) => iou(all[i].box, all[j].box) >= twice && (all[i].score < all[j].score || j < i);
  const isPart = (i, j) => shared(all[i].box, all[j].box) >= within && areaOf(all[i].box) * part < areaOf(all[j].box);
  const drops = (i, j) => all[i].score <= all[j].score && (isAgain(i, j) || isPart(i, j));
  return faces.filter((_, i) => !all.some((_, j) => drops(i, j)));
}

/** Return the `most` largest faces, best first. Of faces on or in each other, the one with the highest landmark scores stays. */
export function largest(faces, most, { other, within }) {
  const kept = [], tight = ({ landmarks }) => boxOf(landmarks);
  for (const face of [...faces].sort((one, two) => mean(two.scores) - mean(one.scores))) {
    const isNew = (one) => iou(tight(one), tight(face)) <= other && shared(tight(one), tight(face)) < within;
    if (kept.every(isNew)) kept.push(face);
  }
  kept.sort((one, two) => areaOf(tight(two)) - areaOf(tight(one)));
  return bestFirst(kept.slice(0, most));
}

/** Return things with a box, the largest ones first. */
export function largestFirst(boxed) {
  return [...boxed].sort((one, two) => areaOf(two.box) - areaOf(one.box));
}

/** Return faces or detections, those with the highest scores first. */
export function bestFirst(scored) {
  return [...scored].sort((one, two) => two.score - one.score);
}
