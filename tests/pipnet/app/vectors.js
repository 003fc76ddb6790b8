/** Driver of the page's modules in node: answers what test_vectors.py asks on stdin. */

import { readFileSync } from "node:fs";
import { Drowsiness } from "./drowsiness.js";
import * as geometry from "./geometry.js";
import { Landmarker } from "./landmarker.js";
import * as numbers from "./numbers.js";
import * as pose from "./pose.js";
import { makeSmooth } from "./smooth.js";
import { Tracker } from "./tracker.js";

/** A landmarker that knows the faces of the frame, as `Scene` in test_vectors.py. */
class Scene extends Landmarker {
  async detect(frame, quarters = 0) {
    const angle = (quarters * Math.PI) / 2;
    const seen = this.faces.filter(({ turn, landmarks }) => turn === quarters && this.shows(geometry.boxOf(landmarks), frame));
    const boxes = seen.map(({ landmarks }) => {
      const upright = geometry.turnAbout(geometry.centreOf(geometry.boxOf(landmarks)), -angle);
      return [...geometry.boxOf(geometry.transform(landmarks, upright)), angle];
    });
    return { boxes, scores: boxes.map(() => 1) };
  }

  async landmarksOf(frame, boxes, scores) {
    this.calls += boxes.length > 0;
    return boxes.map((box, i) => {
      const tight = box[4] ? geometry.turnedBox(box.slice(0, 4), box[4]) : box.slice(0, 4);
      const shared = this.faces.map((face) => geometry.iou(geometry.boxOf(face.landmarks), tight)), most = Math.max(0, ...shared);
      const nearest = this.faces[shared.indexOf(most)], hit = most > 0.2 && nearest.score ? nearest : this.background;
      const moved = hit === this.background ? [tight[0], tight[1]] : [0, 0];
      return { box: tight, score: scores[i], landmarks: hit.landmarks.map(([x, y]) => [x + moved[0], y + moved[1]]),
        scores: hit.landmarks.map(() => hit.score), sigma: null, pose: null, states: null };
    });
  }
}

const parse = (text) => JSON.parse(text, (_, value) => (value === "NaN" ? NaN : value));
const { settings, calls, poses, smooth, drowsy, scene, protocols } = parse(readFileSync(0, "utf8")), { size: frame } = scene;
const answers = { calls: calls.map(([name, ...given]) => ({ ...geometry, ...numbers, ...pose })[name](...given)) };

answers.poses = poses.map((landmarks) => pose.headPose(landmarks, settings.pose, frame.width, frame.height));

answers.smooth = smooth.map((frames) => {
  const filter = makeSmooth("one-euro", settings.smooth);
  return frames.map(([seconds, faces]) => [...filter.update(new Map(faces), seconds)]);
});

answers.drowsy = drowsy.map(({ eyes, mouth, frames }) => {
  const drowsiness = new Drowsiness({ ...settings.drowsiness, eyes, mouth });
  return frames.map(([id, landmarks, seconds, states]) => drowsiness.update(id, landmarks, seconds, states));
});

answers.protocols = protocols.map(({ net, boxes, faces }) => {
  const landmarker = new Landmarker({ ...settings, net: { ...settings.net, ...net } });
  return {
    detected: boxes.map((box) => landmarker.fromDetector(box)),
    turned: net.inner ? [] : boxes.map((box) => landmarker.fromDetector(box))
      .flatMap((box) => [1, 2, 3].map((quarters) => landmarker.turned(box, quarters))),
    next: faces.map((face) => landmarker.boxOf(face.landmarks)),
    shown: boxes.map((box) => landmarker.shows([...box, 0.3], frame)),
    sure: faces.map((face) => landmarker.isSure(face)),
    far: boxes.slice(1).map((box, i) => landmarker.isFar([...boxes[i], 0.1], [...box, 0.2], false)),
  };
});

const picture = { ...frame, data: new Uint8ClampedArray(4 * frame.width * frame.height) };
const landmarker = Object.assign(new Scene(settings), { background: scene.background });
const tracker = new Tracker(landmarker, makeSmooth("one-euro", settings.smooth), settings);
answers.tracked = [];
answers.found = [];
for (const { seconds, faces } of scene.frames) {
  landmarker.faces = faces;
  const before = landmarker.calls;
  answers.tracked.push({ faces: await tracker.update(picture, seconds), calls: landmarker.calls - before });
}
landmarker.background.score = scene.doubtful;
for (const { faces } of scene.stills) {
  landmarker.faces = faces;
  const before = landmarker.calls;
  answers.found.push({ faces: await landmarker.facesOf(picture), calls: landmarker.calls - before });
}
process.stdout.write(JSON.stringify(answers));
