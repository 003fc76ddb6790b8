/** Drawing of a frame and its faces, as pipnet/draw.py. */

import { areaOf } from "./geometry.js";

export const STYLES = ["edges", "points", "numbers", "nothing"];
const CORNER = 0.2;  // length of a box's corner, of its side

/**
 * Draw a frame and its faces into a canvas of the frame's size.
 *
 * layout: `edges`, `colours` and the score below which a landmark is `uncertain`. mirrored: as in a mirror, with readable text.
 */
export function draw(canvas, bitmap, faces, layout, { style, mirrored }) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  }
  const context = canvas.getContext("2d");
  context.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? canvas.width : 0, 0);
  context.drawImage(bitmap, 0, 0);
  context.setTransform(1, 0, 0, 1, 0, 0);
  if (style === "nothing") return;
  const place = ([x, y]) => [mirrored ? canvas.width - x : x, y];
  for (const [number, face] of faces.entries()) {
    const side = Math.sqrt(areaOf(face.box)), points = face.landmarks.map(place);
    context.lineWidth = Math.max(1, side / 250);
    drawBox(context, place(face.box.slice(0, 2)), place(face.box.slice(2)));
    if (style === "edges") drawEdges(context, points, layout);
    const hollow = face.visible ? face.visible.map((seen) => seen < 0.5) : face.scores.map((score) => score < layout.uncertain);
    const larger = Math.min(2, Math.max(1, Math.sqrt(68 / points.length)));  // points of a sparse layout
    drawPoints(context, points, hollow, layout, larger * Math.max(1, side / 130));
    if (style === "numbers" || (style === "edges" && !layout.edges.length)) drawNumbers(context, points, layout, Math.max(8, side / 30));
    write(context, `#${face.id ?? number}`, side, place(face.box), place(face.box.slice(2)));
  }
}

function drawBox(context, [x1, y1], [x2, y2]) {
  context.strokeStyle = "#fff";
  context.beginPath();
  for (const [x, y, across, down] of [[x1, y1, x2, y2], [x2, y1, x1, y2], [x1, y2, x2, y1], [x2, y2, x1, y1]]) {
    context.moveTo(x + CORNER * (across - x), y);
    context.lineTo(x, y);
    context.lineTo(x, y + CORNER * (down - y));
  }
  context.stroke();
}

function drawEdges(context, points, { edges, colours }) {
  for (const [from, to] of edges) {
    context.strokeStyle = colours[from];
    context.beginPath();
    context.moveTo(...points[from]);
    context.lineTo(...points[to]);
    context.stroke();
  }
}

function drawPoints(context, points, hollow, { colours }, radius) {
  points.forEach(([x, y], i) => {
    context.fillStyle = context.strokeStyle = colours[i];
    context.beginPath();
    context.arc(x, y, hollow[i] ? 1.6 * radius : radius, 0, 2 * Math.PI);
    if (hollow[i]) context.stroke(); else context.fill();
  });
}

function drawNumbers(context, points, { colours }, size) {
  context.font = `${size}px sans-serif`;
  points.forEach(([x, y], i) => {
    context.fillStyle = colours[i];
    context.fillText(i, x + size / 4, y - size / 4);
  });
}

/** Write a line above the box, with a dark outline. */
function write(context, text, side, [x1, y], [x2]) {
  const size = Math.max(12, side / 12);
  context.font = `600 ${size}px sans-serif`;
  context.lineJoin = "round";
  context.lineWidth = size / 5;
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  const place = [Math.max(0, Math.min(x1, x2)), Math.max(y - size / 3, size)];
  context.strokeText(text, ...place);
  context.fillText(text, ...place);
}
