/** Faces that a turn, noise or darkness hides, searched in the enhanced frame as pipnet/search.py, but in quarter turns only. */

import { enhanced, resized } from "./crop.js";
import { areaOf, boxOf, carry, centreOf, iou, shared } from "./geometry.js";
import { mean } from "./numbers.js";

/** Return the map (see geometry.js) from a frame that is turned counter-clockwise by quarter turns back to the frame. */
function turnBack(quarters, { width, height }) {
  return [[1, 0, 0, 0, 1, 0], [0, -1, width, 1, 0, 0], [-1, 0, width, 0, -1, height], [0, 1, 0, -1, 0, height]][quarters];
}

/** Return a picture {data, width, height} in BGR, turned counter-clockwise by quarter turns. */
function turnPicture(picture, quarters) {
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

/** Return whether a face leans by at most `lean` (radians) in a frame that is turned by one of `turns` (degrees). */
export function stands(landmarker, face, turns) {
  const roll = landmarker.rollOf(face.landmarks);
  return turns.some((turn) => Math.cos(roll - (turn * Math.PI) / 180) >= Math.cos(landmarker.searched.lean));
}

/**
 * Return the faces of a frame. While none is sure, the enhanced and turned frame is searched for more.
 *
 * rolls: degrees, clockwise, of the faces that are searched; the one with the highest score comes first.
 */
export async function search(landmarker, frame, faces, rolls = landmarker.searched.quarters) {
  const { net, searched } = landmarker, isSure = (face) => landmarker.isSure(face);
  const zoom = Math.min(searched.side / Math.max(frame.width, frame.height), searched.larger);
  if (!net.can_search || faces.some(isSure) || zoom * Math.min(frame.width, frame.height) < 1) return faces;
  const clear = enhanced(frame, searched), small = resized(clear, zoom), most = landmarker.crops + searched.most_crops;
  const looks = [], tried = [], top = ({ found }) => Math.max(0, ...found.map(({ score }) => score));
  for (const roll of rolls) looks.push({ roll, found: await look(landmarker, small, roll, zoom) });
  for (const { roll, found } of looks.sort((one, other) => top(other) - top(one))) {
    if (!found.length || landmarker.crops >= most) break;
    tried.push(roll);
    const some = await landmarker.refined(clear, found, true);
    const again = some.map(({ landmarks, score }) => ({ box: landmarker.boxOf(landmarks), score }));
    some.push(...await landmarker.refined(frame, again, true));
    faces = best([...faces, ...some.filter((face) => mean(face.scores) >= net.sure)], searched, landmarker.most);
    if (faces.some((face) => isSure(face) && stands(landmarker, face, tried))) break;
  }
  return faces;
}

/** Return {box, score} of the faces with a roll (degrees) in a frame, in px of that; `small`: the frame in BGR, resized by `zoom`. */
async function look(landmarker, small, roll, zoom) {
  const picture = turnPicture(small, roll / 90), back = turnBack(roll / 90, small);
  const found = await landmarker.detected(picture, (image) => landmarker.detector.look(image, 1));
  return found.map(({ box, score }) => ({ box: carry(box, back), score })).filter(({ box }) => contains(small, centreOf(box)))
    .map(({ box, score }) => ({ box: [...box.map((edge) => edge / zoom), (roll * Math.PI) / 180], score }));
}

/** Return whether a point lies in a frame. */
function contains({ width, height }, [x, y]) {
  return x >= 0 && y >= 0 && x < width && y < height;
}

/** Return the `most` largest faces, by score. Of faces on or in each other, the one with the highest landmark scores stays. */
function best(faces, { same, within }, most) {
  const kept = [];
  for (const face of [...faces].sort((one, other) => mean(other.scores) - mean(one.scores))) {
    const box = boxOf(face.landmarks);
    const others = kept.map(({ landmarks }) => boxOf(landmarks));
    if (others.every((other) => iou(other, box) <= same && shared(other, box) < within)) kept.push(face);
  }
  const area = (face) => areaOf(boxOf(face.landmarks));
  return kept.sort((one, other) => area(other) - area(one)).slice(0, most).sort((one, other) => other.score - one.score);
}
