/** Pixels for the nets: crops and shrunk frames in BGR, from a frame {data, width, height} in RGBA (ImageData). */

import { centreOf } from "./geometry.js";
import { clamp, mean } from "./numbers.js";

/**
 * Write a crop of a frame into `target` at `offset`: size x size px, BGR, black outside the frame; see `cut` in geometry.py.
 *
 * crop: nominal crop in image px. net: `size` of the nominal crop, `border` px around it, `zero`: whether that border is black.
 * angle: radians by which the crop is turned clockwise about its centre. A crop that is shrunk averages at least one sample per
 * source pixel; a large one is first halved by means of four pixels.
 */
export function cut(picture, nominal, { size, border, zero }, angle, target, offset) {
  const side = size + 2 * border, [frame, crop] = halvedFor(picture, nominal, size, side, angle);
  const width = crop[2] - crop[0], height = crop[3] - crop[1];
  const times = [width, height].map((length) => Math.max(Math.ceil(length / size - 1e-9), 1));  // samples per pixel
  const cosine = Math.cos(angle), sine = Math.sin(angle);
  const dx = width / size / times[0], dy = height / size / times[1];  // image px between samples
  const cx = (crop[0] + crop[2]) / 2 - 0.5, cy = (crop[1] + crop[3]) / 2 - 0.5;
  const { data, width: wide, height: high } = frame, share = 1 / (times[0] * times[1]), sample = new Float64Array(3);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++, offset += 3) {
      const inside = Math.min(row, column) >= border && Math.max(row, column) < side - border;
      let blue = 0, green = 0, red = 0;
      for (let i = 0; i < times[1] && (inside || !zero); i++) {
        const down = (row * times[1] + i + 0.5 - (side * times[1]) / 2) * dy;
        for (let j = 0; j < times[0]; j++) {
          const across = (column * times[0] + j + 0.5 - (side * times[0]) / 2) * dx;
          const x = cx + cosine * across - sine * down, y = cy + sine * across + cosine * down;
          const left = Math.floor(x), top = Math.floor(y);
          if (left >= 0 && top >= 0 && left < wide - 1 && top < high - 1) {  // written out: most of the time goes here
            const u = x - left, v = y - top, p = 4 * (top * wide + left), q = p + 4 * wide;
            const a = (1 - u) * (1 - v), b = u * (1 - v), c = (1 - u) * v, d = u * v;
            blue += (a * data[p + 2] + b * data[p + 6] + c * data[q + 2] + d * data[q + 6] + 0.5) | 0;  // rounded as OpenCV does
            green += (a * data[p + 1] + b * data[p + 5] + c * data[q + 1] + d * data[q + 5] + 0.5) | 0;
            red += (a * data[p] + b * data[p + 4] + c * data[q] + d * data[q + 4] + 0.5) | 0;
          } else {
            sampleEdge(frame, x, y, sample);
            blue += Math.round(sample[0]);
            green += Math.round(sample[1]);
            red += Math.round(sample[2]);
          }
        }
      }
      target[offset] = blue * share + 0.5;
      target[offset + 1] = green * share + 0.5;
      target[offset + 2] = red * share + 0.5;
    }
  }
}

/** Write the bilinear BGR value at (x, y), integers at pixel centres, into `sample`; pixels outside the frame are black. */
function sampleEdge({ data, width, height }, x, y, sample) {
  sample.fill(0);
  const left = Math.floor(x), top = Math.floor(y);
  for (let row = Math.max(top, 0); row < Math.min(top + 2, height); row++) {
    for (let column = Math.max(left, 0); column < Math.min(left + 2, width); column++) {
      const weight = (1 - Math.abs(y - row)) * (1 - Math.abs(x - column)), place = 4 * (row * width + column);
      for (let channel = 0; channel < 3; channel++) sample[channel] += weight * data[place + 2 - channel];
    }
  }
}

/** Return [frame or a halved part of it, the crop in it]. A pixel of the crop is less than two px of that frame wide. */
function halvedFor(frame, crop, size, side, angle) {
  const sides = [crop[2] - crop[0], crop[3] - crop[1]], times = Math.floor(Math.log2(Math.max(Math.min(...sides) / size, 1)));
  const reach = sides.map((length) => ((length * side) / size / 2) * (angle ? 1.5 : 1)), centre = centreOf(crop);
  const low = centre.map((middle, axis) => Math.max(Math.floor(middle - reach[axis]) - 2, 0));
  const high = [frame.width, frame.height].map((most, axis) => Math.min(Math.ceil(centre[axis] + reach[axis]) + 2, most));
  if (!times || Math.min(high[0] - low[0], high[1] - low[1]) < 2 ** times) return [frame, crop];
  let part = halved(frame, [...low, ...high]);
  for (let i = 1; i < times; i++) part = halved(part);
  return [part, crop.map((edge, i) => (edge - low[i % 2]) / 2 ** times)];
}

/** Return a frame, or its part in a box of whole pixels, at half the size. Each pixel is the mean of four. */
function halved({ data, width, height }, [x1, y1, x2, y2] = [0, 0, width, height]) {
  const [columns, rows] = [x2 - x1, y2 - y1].map((length) => evenly(length / 2));
  const result = new Uint8ClampedArray(4 * columns * rows);
  for (let row = 0, offset = 0; row < rows; row++) {
    const upper = width * (y1 + 2 * row), lower = width * Math.min(y1 + 2 * row + 1, y2 - 1);
    for (let column = 0; column < columns; column++) {
      const left = x1 + 2 * column, right = Math.min(left + 1, x2 - 1);
      const a = 4 * (upper + left), b = 4 * (upper + right), c = 4 * (lower + left), d = 4 * (lower + right);
      for (let i = 0; i < 4; i++) result[offset++] = (data[a + i] + data[b + i] + data[c + i] + data[d + i] + 2) >> 2;
    }
  }
  return { data: result, width: columns, height: rows };
}

/** Return a number rounded as OpenCV does: a half to the even neighbour. */
function evenly(value) {
  return value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value);
}

/** Return a frame in BGR {data, width, height}, resized by a factor without aliasing, see `resized` in images.py. */
export function resized(frame, factor) {
  return factor < 0.5 ? resized(halved(frame), 2 * factor) : toBgr(frame, factor);
}

/** Return a frame in BGR {data, width, height}, resized by `scale` with bilinear samples as cv2.resize takes them. */
export function toBgr({ data, width, height }, scale = 1) {
  const columns = evenly(width * scale), rows = evenly(height * scale);
  const result = new Uint8Array(3 * columns * rows);
  const across = steps(columns, width, scale), down = steps(rows, height, scale);
  let offset = 0;
  for (const [top, bottom, upper, lower] of down) {
    for (const [left, right, earlier, later] of across) {
      const a = 4 * (top * width + left), b = 4 * (top * width + right);
      const c = 4 * (bottom * width + left), d = 4 * (bottom * width + right);
      for (let channel = 2; channel >= 0; channel--) {
        const above = (data[a + channel] * earlier + data[b + channel] * later) >> 4;  // bits are dropped as OpenCV does
        const below = (data[c + channel] * earlier + data[d + channel] * later) >> 4;
        result[offset++] = (((above * upper) >> 16) + ((below * lower) >> 16) + 2) >> 2;
      }
    }
  }
  return { data: result, width: columns, height: rows };
}

/** Return [first source pixel, second, share of each in 1 / 2048] for `count` samples along an axis of `length` px. */
function steps(count, length, scale) {
  return Array.from({ length: count }, (_, i) => {
    const place = Math.min(Math.max((i + 0.5) / scale - 0.5, 0), length - 1), low = Math.floor(place);
    return [low, Math.min(low + 1, length - 1), ...[low + 1 - place, place - low].map((share) => Math.round(2048 * share))];
  });
}

/** Return a frame without coloured light, with less noise if it is noisy, brighter if it is dark; see `enhanced` in images.py. */
export function enhanced(frame, { blur, blur_reach: reach, bright, darkest, noisy, tinted, most_gain: most }) {
  const { data, width, height } = frame, sums = [0, 0, 0, 0];
  for (let i = 0; i < data.length; i++) sums[i % 4] += data[i];
  const means = sums.slice(0, 3).map((sum) => Math.max(sum / (width * height), 1)), top = Math.max(...means);
  const gains = means.map((level) => (top > tinted * Math.min(...means) ? Math.min(top / level, most) : 1));
  const level = mean(means.map((value, channel) => value * gains[channel])) / 255;
  const gamma = Math.log(bright) / Math.log(clamp(level, darkest, bright));
  const curves = [...gains, 1].map((gain) => Array.from(
    { length: 256 }, (_, value) => Math.round(255 * Math.min(value * gain / 255, 1) ** gamma)));
  const light = (pixels) => ({ data: pixels.map((value, i) => curves[i % 4][value]), width, height }), brighter = light(data);
  return noiseOf(brighter) < noisy ? brighter : light(blurred(frame, bell(blur, reach), reach).data);
}

/** Return the standard deviation of the noise in the green channel of a frame; see `noise_of` in images.py. */
function noiseOf({ data, width, height }) {
  let sum = 0;
  for (let row = 1; row < height - 1; row++) {
    for (let column = 1; column < width - 1; column++) {
      const place = 4 * (row * width + column) + 1;
      const across = (middle) => data[middle - 4] - 2 * data[middle] + data[middle + 4];
      sum += Math.abs(across(place - 4 * width) - 2 * across(place) + across(place + 4 * width));
    }
  }
  return height > 2 && width > 2 ? Math.sqrt(Math.PI / 2) / 6 * sum / ((width - 2) * (height - 2)) : 0;
}

/** Return a frame, blurred in each direction. weights: of the px up to `reach` away, in 1 / 256. */
function blurred({ data, width, height }, weights, reach) {
  const places = Array.from({ length: width }, (_, x) => weights.map((_, i) => 4 * mirrored(x + i - reach, width)));
  const result = new Uint8ClampedArray(data.length).fill(255), line = new Float32Array(4 * width);
  for (let row = 0; row < height; row++) {
    line.fill(0);
    weights.forEach((weight, i) => {
      const start = 4 * width * mirrored(row + i - reach, height);
      for (let place = 0; place < line.length; place++) line[place] += weight * data[start + place];
    });
    for (let column = 0; column < width; column++) {
      for (let channel = 0; channel < 3; channel++) {
        let value = 0;
        for (let i = 0; i < weights.length; i++) value += weights[i] * line[places[column][i] + channel];
        result[4 * (row * width + column) + channel] = (value + 2 ** 15) / 2 ** 16 | 0;
      }
    }
  }
  return { data: result, width, height };
}

/** Return the weights of a Gaussian blur in 1 / 256, rounded as OpenCV does: what a rounding leaves is added to the next weight. */
function bell(deviation, reach) {
  const exact = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * deviation ** 2)));
  const side = [], share = 256 / (mean(exact) * exact.length);
  let left = 0;
  for (const value of exact.slice(0, reach)) {
    side.push(Math.round(value * share + left));
    left += value * share - side.at(-1);
  }
  return [...side, 256 - 2 * mean(side) * reach, ...side.reverse()];
}

/** Return a place in a line of pixels: one outside is reflected at the outermost pixel, which is not repeated. */
function mirrored(place, length) {
  const period = Math.max(2 * (length - 1), 1), inside = Math.abs(place) % period;
  return Math.min(inside, period - inside);
}
