/** Frames as lines of JSON, with the fields and roundings of demo.py --json. */

const KEPT = 18000;  // frames: ten minutes of 30 a second

/** Lines of the last frames. */
export class Records {
  constructor() {
    this.lines = [];
  }

  /** Add a frame: {frame, seconds, name, width, height} and its faces. */
  add(frame, faces) {
    this.lines.push(JSON.stringify(record(frame, faces)));
    if (this.lines.length > KEPT) this.lines.shift();
  }

  /** Save the lines under a name, as a download. */
  save(name) {
    download(new Blob([...this.lines.map((line) => `${line}\n`)], { type: "application/jsonl" }), name);
  }
}

/** Save a blob under a name, as a download. */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Return the object of one frame. */
export function record({ index, seconds, name, width, height }, faces) {
  return {
    frame: index, time: rounded(seconds, 4), file: name, width, height,
    faces: faces.map((face) => ({
      id: face.id ?? null, box: rounded(face.box, 2), score: rounded(face.score, 4), landmarks: rounded(face.landmarks, 2),
      landmark_scores: rounded(face.scores, 3), sigma: rounded(face.sigma, 3), pose: rounded(face.pose, 2),
      ...(face.states && { states: rounded(face.states, 3) }), ...(face.visible && { visible: rounded(face.visible, 3) }),
      ...rounded(face.drowsiness ?? {}, 4),
    })),
  };
}

/** Return the values rounded; null for what is not finite. */
function rounded(value, digits) {
  if (Array.isArray(value)) return value.map((one) => rounded(one, digits));
  if (typeof value === "number") return Number.isFinite(value) ? Number(value.toFixed(digits)) : null;
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, rounded(one, digits)]));
  }
  return value ?? null;
}
