/** Faces that a turn, noise or darkness hides, searched in the enhanced frame as pipnet/search.py, but in quarter turns only. */

import { enhanced } from "./crop.js";
import { areaOf, boxOf, centreOf, iou } from "./geometry.js";
import { mean } from "./numbers.js";

const QUARTERS = [[0], [1, 2, 3]];  // turns by 90 degrees clockwise of the faces that are searched, step by step

/** Return the map (see geometry.js) from a frame that is turned counter-clockwise by quarter turns back to the frame. */
export function turnBack(quarters, { width, height }) {
  return [[1, 0, 0, 0, 1, 0], [0, -1, width, 1, 0, 0], [-1, 0, width, 0, -1, height], [0, 1, 0, -1, 0, height]][quarters];
}

/** Return a picture {data, width, height} in BGR, turned counter-clockwise by quarter turns. */
export function turnPicture(picture, quarters) {
  if (!quarters) return picture;
  const [a, b, c, d, e, f] = turnBack(quarters, picture), { data, width: wide } = picture, sideways = quarters % 2;
  const width = sideways ? picture.height : wide, height = sideways ? wide : picture.height;
  const result = new Uint8Array(data.length);
  const start = Math.floor((a + b) / 2 + c) + wide * Math.floor((d + e) / 2 + f), across = a + wide * d, down = b + wide * e;
  for (let row = 0, offset = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const place = 3 * (start + column * across + row * down);
      result[offset++] = data[place];
      result[offset++] = data[place + 1];
      result[offset++] = data[place + 2];
    }
  }
  return { data: result, width, height };
}

/** Return whether a face leans by at most `lean` (radians) in a frame that is turned by one of `turns` (quarters). */
export function stands(landmarker, face, turns) {
  const roll = landmarker.rollOf(face.landmarks);
  return turns.some((quarters) => Math.cos(roll - quarters * Math.PI / 2) >= Math.cos(landmarker.searched.lean));
}

/** Return the faces of a frame; while none is sure, those are added that the detector finds in the enhanced and turned frame. */
export async function search(landmarker, frame, faces, steps = QUARTERS) {
  const { sure: least } = landmarker.net, isSure = (face) => landmarker.isSure(face), turns = [];
  if (!landmarker.net.can_search || faces.some(isSure)) return faces;
  const { same, most_calls: calls } = landmarker.searched, most = landmarker.calls + calls;
  const clear = enhanced(frame, landmarker.searched);
  let found = faces;
  for (const step of steps) {
    turns.push(...step);
    for (const quarters of step) {
      if (landmarker.calls >= most) break;
      const { boxes, scores } = await landmarker.detect(clear, quarters), inside = (_, i) => contains(frame, centreOf(boxes[i]));
      for (const one of [clear, frame]) {
        const some = await landmarker.refined(one, boxes.filter(inside), scores.filter(inside), true);
        found = [...found, ...some.filter((face) => mean(face.scores) >= least)];
      }
    }
    found = best(found, same, landmarker.most ?? Infinity);
    if (found.some((face) => isSure(face) && stands(landmarker, face, turns))) break;
  }
  return found;
}

/** Return whether a point lies in a frame. */
function contains({ width, height }, [x, y]) {
  return x >= 0 && y >= 0 && x < width && y < height;
}

/** Return the `most` largest faces, ordered by score. Of faces on each other, the one with the highest landmark scores stays. */
function best(faces, same, most) {
  const kept = [];
  for (const face of [...faces].sort((one, other) => mean(other.scores) - mean(one.scores))) {
    const box = boxOf(face.landmarks);
    if (kept.every((other) => iou(boxOf(other.landmarks), box) <= same)) kept.push(face);
  }
  const area = (face) => areaOf(boxOf(face.landmarks));
  return kept.sort((one, other) => area(other) - area(one)).slice(0, most).sort((one, other) => other.score - one.score);
}
