/** The nets and all that follows them, off the page's thread: {bitmap, seconds} in, {bitmap, faces, times} out. */

import { Drowsiness } from "./drowsiness.js";
import { Landmarker } from "./landmarker.js";
import { headPose } from "./pose.js";
import { openRuntime } from "./runtime.js";
import { makeSmooth } from "./smooth.js";
import { Tracker } from "./tracker.js";

const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext("2d", { willReadFrequently: true });
let settings, landmarker, tracker, drowsiness;

/** Forget all faces: the next frame is of another video. */
function restart() {
  tracker = new Tracker(landmarker, makeSmooth(settings.options.smooth, settings.smooth), settings);
  drowsiness = settings.drowsiness && new Drowsiness(settings.drowsiness);
}

/** Return the pixels of a bitmap. */
function read(bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  }
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** Return a face with the landmarks of the chosen layout only, which may be a part of those that are searched for. */
function partOf(face) {
  const { part } = settings.net, [landmarks, scores, sigma, visible] = [face.landmarks, face.scores, face.sigma, face.visible]
    .map((values) => values && part ? part.map((k) => values[k]) : values);
  return { ...face, landmarks, scores, sigma, visible };
}

/** Return the faces of a frame; seconds: null for a picture. */
async function find(frame, seconds) {
  const still = seconds === null;
  let faces = (still ? await landmarker.facesIn(frame) : await tracker.update(frame, seconds)).map(partOf);
  if (drowsiness && !still) {
    faces = faces.map((face) => ({ ...face, drowsiness: drowsiness.update(face.id, face.landmarks, seconds, face.states) }));
  }
  if (settings.pose && !settings.net.pose) {
    faces = faces.map((face) => ({ ...face, pose: headPose(face.landmarks, settings.pose) }));
  }
  return faces;
}

/** Answer one frame with its faces and the seconds that each stage took. */
async function answer({ bitmap, seconds }) {
  const start = performance.now();
  landmarker.seconds = { detect: 0, landmarks: 0 };
  const frame = read(bitmap), decode = (performance.now() - start) / 1000;
  const faces = await find(frame, seconds), stages = landmarker.seconds;
  const track = (performance.now() - start) / 1000 - decode - stages.detect - stages.landmarks;
  self.postMessage({ bitmap, faces, times: { decode, ...stages, track } }, [bitmap]);
}

self.onmessage = async ({ data }) => {
  try {
    if (data.settings) {
      settings = data.settings;
      const { net, finder, detector } = settings;
      const files = { landmarks: net.file, int8: net.int8 ?? net.file, finder: finder?.file, detector: detector.file };
      const runtime = await openRuntime(files, [net, finder ?? net].map(({ size, border }) => size + 2 * border));
      landmarker = new Landmarker(settings, runtime);
      restart();
      self.postMessage({ ready: runtime.title });
    } else if (data.restart) {
      restart();
    } else {
      await answer(data);
    }
  } catch (error) {
    self.postMessage({ error: error.message ?? String(error) });
  }
};
