/** Head pose: ten landmarks against the same points of a rigid head, as pipnet/pose.py. */

import { mean, solve } from "./numbers.js";

const STEPS = 30;      // of the fit, at most; it converges in about ten
const SMALL = 1e-6;    // radians and model units: a step below which the fit has converged
const DAMPING = 1e-3;  // initial, of Levenberg and Marquardt

/**
 * Return [pitch, yaw, roll] in degrees of landmarks in px; null where the fit fails.
 *
 * model: `points` of the head (x to the image's left, y up, z out of the face) and `landmarks`, the numbers whose mean each is.
 * The camera is straight ahead, model.far face sizes away. The fit minimises the distances in the image.
 */
export function headPose(landmarks, model) {
  const marks = model.landmarks.map((ids) => [0, 1].map((axis) => mean(ids.map((i) => landmarks[i][axis]))));
  const axes = [0, 1].map((axis) => marks.map((mark) => mark[axis])), middle = axes.map(mean);
  const focal = model.far * Math.max(...axes.map((values) => Math.max(...values) - Math.min(...values)), 1e-6);
  const seen = marks.map((mark) => mark.map((value, axis) => (value - middle[axis]) / focal));
  let { rotation, shift } = start(model.points, seen);
  let error = residuals(model.points, seen, rotation, shift), damping = DAMPING;
  for (let step = 0; step < STEPS; step++) {
    const { matrix, values } = normalEquations(model.points, seen, rotation, shift);
    matrix.forEach((row, i) => { row[i] *= 1 + damping; });
    const change = solve(matrix, values);
    const turned = multiply(turnBy(change.slice(0, 3)), rotation), moved = shift.map((value, i) => value + change[3 + i]);
    const next = residuals(model.points, seen, turned, moved);
    if (!(next < error)) {  // also where it is no number
      damping *= 10;
      if (damping > 1e6) break;
      continue;
    }
    [rotation, shift, error, damping] = [turned, moved, next, damping / 10];
    if (Math.hypot(...change) < SMALL) break;
  }
  const [[a, b, c], [, , d], [, , e]] = rotation;
  const angles = [Math.atan2(d, e), Math.asin(Math.min(Math.max(c, -1), 1)), Math.atan2(-b, a)].map((one) => (one * 180) / Math.PI);
  return angles.every(Number.isFinite) ? angles : null;
}

/** Return the pose of a scaled orthographic camera: the affine map of the points, its rows made orthonormal. */
function start(points, seen) {
  const rows = [0, 1].map((axis) => {
    const matrix = [0, 1, 2, 3].map((i) => [0, 1, 2, 3].map((j) => dotOf(points, (one) => term(one, i) * term(one, j))));
    return solve(matrix, [0, 1, 2, 3].map((i) => dotOf(points, (one, k) => term(one, i) * seen[k][axis])));
  });
  const scale = Math.sqrt(Math.hypot(...rows[0].slice(0, 3)) * Math.hypot(...rows[1].slice(0, 3)));
  const first = unit(rows[0].slice(0, 3).map((value) => -value)), down = rows[1].slice(0, 3).map((value) => -value);
  const along = dot(first, down), second = unit(down.map((value, i) => value - along * first[i]));
  // the model's axes are mirrored against the image's, so the head's depth is negative
  return { rotation: [first, second, cross(first, second)], shift: [-rows[0][3] / scale, -rows[1][3] / scale, -1 / scale] };
}

const term = (point, i) => (i < 3 ? point[i] : 1);
const dotOf = (points, value) => points.reduce((sum, one, k) => sum + value(one, k), 0);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((value) => value / Math.hypot(...a));
const multiply = (a, b) => a.map((row) => [0, 1, 2].map((j) => row[0] * b[0][j] + row[1] * b[1][j] + row[2] * b[2][j]));

/** Return the sum of the squared distances in the image. */
function residuals(points, seen, rotation, shift) {
  return dotOf(points, (point, k) => {
    const [x, y, z] = rotation.map((row, i) => dot(row, point) + shift[i]);
    return (x / z - seen[k][0]) ** 2 + (y / z - seen[k][1]) ** 2;
  });
}

/** Return the normal equations {matrix, values} of one step: a small turn (3) and a shift (3). */
function normalEquations(points, seen, rotation, shift) {
  const matrix = Array.from({ length: 6 }, () => Array(6).fill(0)), values = Array(6).fill(0);
  points.forEach((point, k) => {
    const turned = rotation.map((row) => dot(row, point)), [x, y, z] = turned.map((value, i) => value + shift[i]);
    [[1 / z, 0, -x / z ** 2], [0, 1 / z, -y / z ** 2]].forEach((slope, axis) => {
      const row = [...cross(turned, slope), ...slope], off = seen[k][axis] - [x / z, y / z][axis];
      row.forEach((one, i) => {
        values[i] += one * off;
        row.forEach((other, j) => { matrix[i][j] += one * other; });
      });
    });
  });
  return { matrix, values };
}

/** Return the rotation about an axis (3) by its length in radians (Rodrigues). */
function turnBy(axis) {
  const angle = Math.hypot(...axis);
  if (angle < 1e-12) return [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const [x, y, z] = axis.map((value) => value / angle), s = Math.sin(angle), c = Math.cos(angle), v = 1 - c;
  return [[c + x * x * v, x * y * v - z * s, x * z * v + y * s],
    [y * x * v + z * s, c + y * y * v, y * z * v - x * s],
    [z * x * v - y * s, z * y * v + x * s, c + z * z * v]];
}

/** Return [pitch, yaw, roll] of a head whose picture is turned clockwise by `angle`; all in radians and as in 300W-LP. */
export function turnPose(pose, angle) {
  const [sp, sy, sr] = pose.map(Math.sin), [cp, cy, cr] = pose.map(Math.cos), s = Math.sin(angle), c = Math.cos(angle);
  const rows = [[cy * cr, cy * sr, -sy], [sp * sy * cr - cp * sr, sp * sy * sr + cp * cr, sp * cy]];
  const top = rows[0].map((value, i) => c * value + s * rows[1][i]), last = -s * rows[0][2] + c * rows[1][2];
  return [Math.atan2(last, cp * cy), -Math.asin(Math.min(Math.max(top[2], -1), 1)), Math.atan2(top[1], top[0])];
}
