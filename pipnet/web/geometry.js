/**
 * Boxes, crops and affine maps, as pipnet/geometry.py defines them.
 *
 * Image pixels are continuous coordinates: pixel i covers [i, i + 1). A point is [x, y], a box [x1, y1, x2, y2], and a map
 * [a, b, c, d, e, f]: x' = a x + b y + c, y' = d x + e y + f. Angles are radians, clockwise as seen.
 */

const LARGEST = 1e7;  // px, side that no crop reaches

/** Return the tight box of points. */
export function boxOf(points) {
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** Return the centre of a box. */
export function centreOf([x1, y1, x2, y2]) {
  return [(x1 + x2) / 2, (y1 + y2) / 2];
}

/** Return the mean of points. */
export function meanOf(points) {
  return [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
}

/** Return the distance of two points. */
export function distance(one, other) {
  return Math.hypot(one[0] - other[0], one[1] - other[1]);
}

/** Return the area of a box. */
export function areaOf([x1, y1, x2, y2]) {
  return (x2 - x1) * (y2 - y1);
}

/** Return the intersection over union of two boxes. */
export function iou(one, other) {
  const area = common(one, other);
  return area / Math.max(areaOf(one) + areaOf(other) - area, 1e-9);
}

/** Return the share of a box that lies in another one. */
export function shared(one, other) {
  return common(one, other) / Math.max(areaOf(one), 1e-9);
}

/** Return the area that two boxes have in common. */
function common(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  return Math.max(width, 0) * Math.max(height, 0);
}

/** Return the points mapped by an affine map. */
export function transform(points, [a, b, c, d, e, f]) {
  return points.map(([x, y]) => [a * x + b * y + c, d * x + e * y + f]);
}

/** Return the map that turns by an angle and leaves `centre` in place. */
export function turnAbout([x, y], angle) {
  const cosine = Math.cos(angle), sine = Math.sin(angle);
  return [cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y];
}

/** Return a box of the same sides whose centre went through a map. */
export function carry(box, map) {
  const centre = centreOf(box), [moved] = transform([centre], map);
  const dx = moved[0] - centre[0], dy = moved[1] - centre[1];
  return [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy];
}

/** Return the upright tight box of the ellipse that fills a box, turned by an angle about the box's centre. */
export function turnedBox(box, angle) {
  const [x, y] = centreOf(box), width = (box[2] - box[0]) / 2, height = (box[3] - box[1]) / 2;
  const cosine = Math.cos(angle), sine = Math.sin(angle);
  const across = Math.hypot(width * cosine, height * sine), down = Math.hypot(width * sine, height * cosine);
  return [x - across, y - down, x + across, y + down];
}

/** Return the least-squares similarity from points to `onto`. */
export function similarity(points, onto) {
  const from = meanOf(points), to = meanOf(onto);
  let along = 0, across = 0, size = 0;
  points.forEach(([px, py], i) => {
    const x = px - from[0], y = py - from[1], u = onto[i][0] - to[0], v = onto[i][1] - to[1];
    along += x * u + y * v;
    across += x * v - y * u;
    size += x * x + y * y;
  });
  const a = along / size, b = across / size;
  return [a, -b, to[0] - a * from[0] + b * from[1], b, a, to[1] - b * from[0] - a * from[1]];
}

/**
 * Return the crop of a face box in an image of width x height, null where none is left; see `crop_box` in geometry.py.
 *
 * protocol: how crops are made. angle: by which the box and the crop are turned, each about its own centre.
 */
export function cropBox(box, protocol, width, height, angle = 0) {
  const floors = protocol.rounding === "floor", demo = protocol.rounding === "demo";
  const whole = protocol.rounding === "float" ? (value) => value : Math.trunc;
  const edges = protocol.rounding === "int" ? box.map((value) => Math.trunc(value + 0.5)) : box.map(whole);
  const sides = [edges[2] - edges[0], edges[3] - edges[1]];
  const scales = [protocol.scale_x, protocol.scale_y];
  let grown = sides.map((side, axis) => {
    if (demo) return side + 2 * whole(side * (scales[axis] - 1) / 2);
    return floors ? 2 * Math.floor(side * scales[axis] / 2) : whole(side * scales[axis]);
  });
  if (protocol.square !== "no") grown = Array(2).fill(protocol.square === "max" ? Math.max(...grown) : Math.min(...grown));
  let low = [0, 1].map((axis) => (floors
    ? Math.floor((edges[axis] + edges[axis + 2]) / 2) - grown[axis] / 2
    : edges[axis] - whole((grown[axis] - sides[axis]) / 2)));
  low[1] += whole(demo ? (1 + 2 * protocol.shift_y - 1) / 2 * sides[1] : protocol.shift_y * sides[1]);
  let high = [low[0] + grown[0] - demo, low[1] + grown[1] - demo];
  if (angle) {
    const crop = carry([...low, ...high], turnAbout(centreOf(edges), angle));
    [low, high] = [crop.slice(0, 2), crop.slice(2)];
  } else if (protocol.border === "clip") {
    const limit = [width, height].map((side) => side - !floors);  // PIPNet's preparations stop one pixel before the edge
    low = low.map((value) => Math.max(value, 0));
    high = [0, 1].map((axis) => Math.min(protocol.rounding === "int" ? low[axis] + grown[axis] : high[axis], limit[axis]));
  }
  const some = [0, 1].every((axis) => high[axis] - low[axis] >= 1e-3 && high[axis] - low[axis] < LARGEST);
  return some && box.every(Number.isFinite) ? [...low, ...high] : null;
}
