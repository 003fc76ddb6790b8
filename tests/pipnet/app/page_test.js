/** Driver of the page in a browser: runs the camera, then pictures, and sends every frame and its record to the server. */

const FRAMES = 50;
const send = (path, body) => fetch(path, { method: "POST", body });
const status = document.getElementById("status"), canvas = document.createElement("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });
let count = 0, changed = false, sent = Promise.resolve();

/** Return the size and the seconds of a video that the browser can play, else its error. */
async function play(name) {
  const video = document.createElement("video");
  video.src = URL.createObjectURL(await (await fetch(name)).blob());
  return new Promise((resolve) => {
    video.onloadeddata = () => resolve([video.videoWidth, video.videoHeight, video.duration]);
    video.onerror = () => resolve(video.error.message);
  });
}

/** Give the page a picture as if a user had chosen it. */
async function choose(name) {
  const files = new DataTransfer(), input = document.getElementById("file");
  files.items.add(new File([await (await fetch(name)).blob()], name, { type: "image/png" }));
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
}

/** Press the buttons that save, and send what the user would get. */
async function save() {
  const made = [];
  HTMLAnchorElement.prototype.click = () => {};
  const both = new Promise((resolve) => {
    URL.createObjectURL = (blob) => made.push(blob) === 2 && resolve();
  });
  for (const id of ["save", "shot"]) document.getElementById(id).click();
  await both;
  for (const blob of made) await send("saved", blob);
}

const { videos, pictures } = await (await fetch("cases.json")).json();
await send("videos", JSON.stringify(await Promise.all(videos.map(play))));

/** Choose the other net, which sees the last picture again, and mirror that. */
function change() {
  changed = true;
  document.getElementById("net").selectedIndex = 1;
  document.getElementById("net").dispatchEvent(new Event("change"));
}

/** Return the middle pixel of the left edge of the drawn picture, as it is and mirrored. */
function edges() {
  const mirror = document.getElementById("mirror"), drawn = document.getElementById("picture");
  const read = (x) => [...drawn.getContext("2d").getImageData(x, drawn.height / 2, 1, 1).data], right = read(drawn.width - 1);
  mirror.click();
  return [right, read(0)];
}

document.addEventListener("frame", ({ detail: { bitmap, record } }) => {
  if (changed) return void send("mirrored", JSON.stringify(edges())).then(() => send("done", status.textContent));
  const still = record.time === null;
  if (count === FRAMES && !still) return;
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height), line = JSON.stringify(record);
  sent = sent.then(() => send("record", line)).then(() => send("pixels", data));
  if (still && !pictures.length) sent.then(save).then(change);
  else if (still || ++count === FRAMES) choose(pictures.shift());
});

new MutationObserver(() => {
  if (status.classList.contains("wrong")) send("done", `error: ${status.textContent}`);
  else if (!changed && status.textContent.startsWith("Ready")) document.getElementById("camera").click();
}).observe(status, { childList: true });
