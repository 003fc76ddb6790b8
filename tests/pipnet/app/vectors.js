/** Driver of the page's modules in node: answers what test_vectors.py asks on stdin. */

import { readFileSync } from "node:fs";
import { cut, enhanced, resized } from "./crop.js";
import { joined } from "./detector.js";
import { Drowsiness } from "./drowsiness.js";
import * as geometry from "./geometry.js";
import { Landmarker } from "./landmarker.js";
import * as numbers from "./numbers.js";
import * as pose from "./pose.js";
import { makeSmooth } from "./smooth.js";
import { Tracker } from "./tracker.js";

/** A landmarker that knows the faces of the frame, as `Scene` in test_vectors.py. */
class Scene extends Landmarker {
  constructor(settings, size, background) {
    const runtime = { image: (data, [height, width]) => ({ data, height, width }), number: (value) => value,
      detector: ({ image }) => this.seen(image) };
    super({ ...settings, detector: { ...settings.detector, face_box: [0, 1, 1] } }, runtime);
    Object.assign(this, { size, background, crops: 0 });
  }

  seen({ data, height, width }) {
    const zoom = Math.max(height, width) / this.size.width;
    const seen = this.faces.filter(({ found, dark }) => found && (data[0] > 50 || !dark));
    const boxes = seen.flatMap(({ landmarks }) => geometry.boxOf(landmarks).map((edge) => zoom * (edge + 10 * (zoom === 0.5))));
    return { boxes: { data: boxes }, scores: { data: seen.map(({ found }) => found) } };
  }

  async read(frame, found, net) {
    this.crops += found.length;
    return found.map(({ box, score }) => {
      const tight = box[4] ? geometry.turnedBox(box.slice(0, 4), box[4]) : box.slice(0, 4);
      const shared = this.faces.map((face) => geometry.iou(geometry.boxOf(face.landmarks), tight)), most = Math.max(0, ...shared);
      const hit = this.faces[shared.indexOf(most)], face = { box: tight, crop: box, detected: score, sigma: null, pose: null, states: null };
      const seen = (landmarks, one) => ({ ...face, landmarks, score: one, scores: landmarks.map(() => one) });
      if (most <= 0.2 || !hit.score) {
        return seen(this.background.landmarks.map(([x, y]) => [x + tight[0], y + tight[1]]), this.background.score);
      }
      const over = Math.cos(box[4] - hit.roll) <= 0, turn = geometry.turnAbout(geometry.meanOf(hit.landmarks), over ? Math.PI : 0);
      const off = () => geometry.transform(hit.landmarks, turn).map(([x, y]) => [x + 4, y + 4]);
      return seen(net ? off() : hit.landmarks, over ? hit.score / 2 : hit.score);
    });
  }
}

const parse = (text) => JSON.parse(text, (_, value) => (value === "NaN" ? NaN : value));
const { settings, calls, poses, pixels, smooth, drowsy, scene, protocols } = parse(readFileSync(0, "utf8"));
const { size: frame } = scene;
const answers = { calls: calls.map(([name, ...given]) => ({ ...geometry, ...numbers, ...pose, joined })[name](...given)) };
answers.poses = poses.map((landmarks) => pose.headPose(landmarks, settings.pose));

const { picture: rows, factors, crops, form } = pixels, side = form.size + 2 * form.border;
const frameOf = (lines) => ({ data: Uint8ClampedArray.from(lines.flat(2)), width: lines[0].length, height: lines.length });
const noise = frameOf(rows);
answers.pixels = {
  resized: factors.map((factor) => resized(noise, factor)).map(({ data, ...size }) => ({ data: [...data], ...size })),
  enhanced: [noise, frameOf(pixels.grainy), frameOf(pixels.red)].map((one) => [...enhanced(one, settings.landmarker).data]),
  crops: crops.map(([crop, angle]) => {
    const target = new Uint8Array(3 * side * side);
    cut(noise, crop, form, angle, target, 0);
    return [...target];
  }),
};

answers.smooth = smooth.map((frames) => {
  const filter = makeSmooth("one-euro", settings.smooth);
  return frames.map(([seconds, faces]) => [...filter.update(new Map(faces), seconds)]);
});

answers.drowsy = drowsy.map(({ eyes, mouth, frames }) => {
  const drowsiness = new Drowsiness({ ...settings.drowsiness, eyes, mouth });
  return frames.map(([id, landmarks, seconds, states]) => drowsiness.update(id, landmarks, seconds, states));
});

answers.protocols = protocols.map(({ net, boxes, faces }) => {
  const landmarker = new Landmarker({ ...settings, net: { ...settings.net, ...net } }, {}), other = landmarker.net;
  return {
    detected: landmarker.landmarkBoxes(frame, boxes.map((box) => ({ box, score: 1 }))).map(({ box }) => box),
    next: faces.map((face) => other.boxOf(face.landmarks)),
    shown: boxes.map((box) => other.shows([...box, 0.3], frame)),
    far: boxes.slice(1).map((box, i) => other.isFar([...boxes[i], 0.1], [...box, 0.2])),
  };
});

const picture = { ...frame, data: new Uint8ClampedArray(4 * frame.width * frame.height).fill(scene.grey) };

/** Return what is found in each frame of the scene, with the number of crops that it took. */
async function inFrames(frames, landmarker, find) {
  const found = [];
  for (const { seconds, faces } of frames) {
    landmarker.faces = faces;
    const before = landmarker.crops, seen = await find(seconds);
    found.push({ faces: seen.map(({ crop, detected, ...face }) => face), crops: landmarker.crops - before });
  }
  return found;
}

const landmarker = new Scene(settings, frame, scene.background);
const tracker = new Tracker(landmarker, makeSmooth("one-euro", settings.smooth), settings);
answers.tracked = await inFrames(scene.frames, landmarker, (seconds) => tracker.update(picture, seconds));
answers.found = [];
for (const most of [null, 1, 2]) {
  const options = { ...settings.options, max_faces: most };
  const one = new Scene({ ...settings, options }, frame, { ...scene.background, score: scene.doubtful });
  answers.found.push(await inFrames(scene.stills, one, () => one.facesIn(picture)));
}
process.stdout.write(JSON.stringify(answers));
