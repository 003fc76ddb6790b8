/** The panel beside the picture: frames per second, the time of each stage, and the values of each face. */

const SPAN = 1;  // s over which the times are smoothed

/** Smoothed frames per second and seconds of each stage. */
export class Rate {
  constructor() {
    this.fps = 0;
    this.stages = {};
  }

  /** Add a frame: seconds of each stage, and seconds since the frame before. */
  update(times, passed) {
    const share = this.fps ? Math.min(passed / SPAN, 1) : 1;
    this.fps += share * (1 / Math.max(passed, 1e-4) - this.fps);
    for (const [name, value] of Object.entries(times)) {
      const before = this.stages[name] ?? value;
      this.stages[name] = before + share * (value - before);
    }
  }
}

/** Show the rate in elements `fps` and `stages`. */
export function showRate({ fps, stages }, rate) {
  fps.textContent = rate.fps.toFixed(0);
  const longest = Math.max(0.02, ...Object.values(rate.stages));
  stages.replaceChildren(...Object.entries(rate.stages).map(([name, seconds]) => {
    const row = element("div", "row", name), bar = element("meter", "", ""), value = element("span", "number", "");
    bar.value = seconds / longest;
    bar.ariaLabel = name;
    value.textContent = `${(1000 * seconds).toFixed(1)} ms`;
    row.append(bar, value);
    return row;
  }));
}

/** Show the faces in an element: one card each, with the number that is drawn beside the face. */
export function showFaces(list, faces) {
  list.replaceChildren(...faces.map((face, place) => {
    const { alarm } = face.drowsiness ?? {}, card = element("li", alarm ? "face alarm" : "face", "");
    card.append(element("h3", "", `Face ${face.id ?? place}`));
    if (alarm) card.append(element("p", "reason", alarm === "perclos" ? "drowsy" : alarm));
    const table = element("dl", "", "");
    for (const [name, value] of rows(face)) table.append(element("dt", "", name), element("dd", "number", value));
    card.append(table);
    return card;
  }));
}

/** Return [name, text] of the values of a face. */
function rows({ score, pose, states, drowsiness }) {
  const found = [["score", score.toFixed(2)]], degrees = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(0)}°`;
  if (pose) ["pitch", "yaw", "roll"].forEach((name, i) => found.push([name, degrees(pose[i])]));
  for (const [name, value] of Object.entries(states ?? {})) found.push([name.replaceAll("_", " "), percent(value)]);
  if (drowsiness) {
    const { open, closed, perclos, blinks, yawns } = drowsiness;
    found.push(["eyes", closed ? "closed" : `${percent(open)} open`], ["closed in the last minute", percent(perclos)],
      ["blinks", blinks], ["yawns", yawns]);
  }
  return found;
}

const percent = (value) => `${(100 * value).toFixed(0)} %`;

function element(tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}
