/**
 * The page: its controls, and the loop from a source's frames to the picture, the panel and the lines of JSON.
 *
 * Every frame is announced by an event `frame` of the document, with {bitmap, record, times}, for scripts that use the page.
 */

import { draw, STYLES } from "./draw.js";
import { Nets } from "./nets.js";
import { Rate, showFaces, showRate } from "./panel.js";
import { download, record, Records } from "./records.js";
import { openCamera, openFile } from "./sources.js";

const find = (id) => document.getElementById(id);
const choices = await (await fetch(new URL("settings.json", import.meta.url))).json();  // settings of each net
const controls = { style: STYLES[0], mirrored: false };
let settings = choices[0], nets = new Nets(settings);
let source = null, opener = null, records = new Records(), last = null, running = Promise.resolve(), starts = 0;

/** Say something in the line below the picture. */
function say(text, wrong = false) {
  find("status").textContent = text;
  find("status").classList.toggle("wrong", wrong);
}

/** Draw the last frame; after a change of the style this draws it anew. */
function redraw() {
  if (last) draw(find("picture"), last.bitmap, last.faces, settings.layout, controls);
}

/** Close the source; its loop ends with the frame that is being worked on. */
function stop() {
  source?.close();
  source = null;
  find("pause").disabled = true;
  find("camera").textContent = "Camera";
}

/** Close the source, open the one that `open` promises, and run it to its end. */
async function start(open) {
  opener = open;
  const mine = ++starts, overtaken = () => mine !== starts;  // by another source that was chosen meanwhile
  stop();
  await running;
  try {
    const title = await nets.opened, opened = overtaken() ? null : await open();
    if (overtaken()) return opened?.close();
    source = opened;
    running = run(opened, title).catch((error) => say(error.message, true));
    await running;
  } catch (error) {
    say(error.message, true);
  }
  if (!overtaken()) stop();
}

/** Say when the nets can run. */
function announce() {
  nets.opened.then((title) => say(`Ready: ${settings.net.name} on ${title}`), (error) => say(error.message, true));
}

/** Load another landmark net, and open the last source again with it. */
async function change(chosen) {
  stop();
  await running;
  nets.close();
  last?.bitmap.close();
  last = null;
  settings = chosen;
  nets = new Nets(settings);
  say("Loading the nets …");
  announce();
  if (opener) start(opener);
}

/** Send the frames of a source through the nets and show them. */
async function run(opened, title) {
  const rate = new Rate(), { name, still, live } = opened;
  records = new Records();
  nets.restart();
  controls.mirrored = find("mirror").checked = live;
  find("pause").disabled = still;
  find("pause").textContent = "Pause";
  if (live) find("camera").textContent = "Stop";
  find("empty").hidden = true;
  let index = 0, before = performance.now();
  for await (const { bitmap, seconds } of opened.frames()) {
    const found = await nets.find(bitmap, seconds), now = performance.now();
    last?.bitmap.close();
    last = found;
    redraw();
    rate.update(found.times, (now - before) / 1000);
    before = now;
    const { width, height } = found.bitmap, frame = { index: index++, seconds, name, width, height };
    records.add(frame, found.faces);
    showRate({ fps: find("fps"), stages: find("stages") }, rate);
    showFaces(find("faces"), found.faces);
    find("save").disabled = find("shot").disabled = false;
    find("rate").hidden = still;
    say(`${name}: ${found.faces.length} face${found.faces.length === 1 ? "" : "s"}; ${settings.net.name} on ${title}`);
    const detail = { bitmap: found.bitmap, record: record(frame, found.faces), times: found.times };
    document.dispatchEvent(new CustomEvent("frame", { detail }));
  }
}

find("camera").addEventListener("click", () => {
  if (!source?.live) return start(openCamera);
  opener = null;
  stop();
});
find("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) start(() => openFile(file));
  target.value = "";  // so that the same file can be chosen again
});
find("pause").addEventListener("click", ({ target }) => {
  const pauses = target.textContent === "Pause";
  source?.pause(pauses);
  target.textContent = pauses ? "Go on" : "Pause";
});
find("style").append(...STYLES.map((name) => new Option(name)));
find("style").addEventListener("change", ({ target }) => {
  controls.style = target.value;
  redraw();
});
find("mirror").addEventListener("change", ({ target }) => {
  controls.mirrored = target.checked;
  redraw();
});
find("net").append(...choices.map(({ net }, place) => new Option(net.use ? `${net.name} (${net.use})` : net.name, place)));
find("net").addEventListener("change", ({ target }) => change(choices[target.value]));
find("net").parentElement.hidden = choices.length === 1;
find("save").addEventListener("click", () => records.save("faces.jsonl"));
find("shot").addEventListener("click", () => find("picture").toBlob((picture) => download(picture, "faces.png")));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) start(() => openFile(file));
});
announce();
