/** Pixels for the nets: crops and shrunk frames in BGR, from a frame {data, width, height} in RGBA (ImageData). */

import { clamp, mean } from "./numbers.js";

/**
 * Write a crop of a frame into `target` at `offset`: size x size px, BGR, black outside the frame; see `cut` in geometry.py.
 *
 * crop: nominal crop in image px. net: `size` of the nominal crop, `border` px around it, `zero`: whether that border is black.
 * angle: radians by which the crop is turned clockwise about its centre. Shrinking averages one sample or more per source pixel.
 */
export function cut(frame, crop, { size, border, zero }, angle, target, offset) {
  const side = size + 2 * border, width = crop[2] - crop[0], height = crop[3] - crop[1];
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

/** Return a frame in BGR {data, width, height}, resized by `scale` with bilinear samples as cv2.resize takes them. */
export function toBgr({ data, width, height }, scale = 1) {
  const columns = Math.round(width * scale), rows = Math.round(height * scale);
  const result = new Uint8Array(3 * columns * rows);
  const across = steps(columns, width, scale), down = steps(rows, height, scale);
  let offset = 0;
  for (const [top, bottom, lower] of down) {
    for (const [left, right, later] of across) {
      const a = 4 * (top * width + left), b = 4 * (top * width + right);
      const c = 4 * (bottom * width + left), d = 4 * (bottom * width + right);
      for (let channel = 2; channel >= 0; channel--) {
        const upper = data[a + channel] + (data[b + channel] - data[a + channel]) * later;
        const under = data[c + channel] + (data[d + channel] - data[c + channel]) * later;
        result[offset++] = upper + (under - upper) * lower + 0.5;
      }
    }
  }
  return { data: result, width: columns, height: rows };
}

/** Return [first source pixel, second, share of the second] for each of `count` samples along an axis of `length` px. */
function steps(count, length, scale) {
  return Array.from({ length: count }, (_, i) => {
    const place = Math.min(Math.max((i + 0.5) / scale - 0.5, 0), length - 1), low = Math.floor(place);
    return [low, Math.min(low + 1, length - 1), place - low];
  });
}

/** Return a frame with less noise, and brighter if it is dark; see `enhanced` in images.py. */
export function enhanced({ data, width, height }, { blur, blur_reach: reach, bright, darkest }) {
  const bell = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * blur ** 2)));
  const weights = bell.map((weight) => weight / (mean(bell) * bell.length));
  const places = Array.from({ length: width }, (_, x) => weights.map((_, i) => 4 * mirrored(x + i - reach, width)));
  const result = new Uint8ClampedArray(data.length).fill(255), line = new Float32Array(4 * width);
  let level = 0;
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
        level += result[4 * (row * width + column) + channel] = Math.round(value);
      }
    }
  }
  const gamma = Math.log(bright) / Math.log(clamp(level / (3 * 255 * width * height), darkest, bright));
  const curve = Array.from({ length: 256 }, (_, value) => Math.round(255 * (value / 255) ** gamma));
  return { data: result.map((value) => curve[value]), width, height };
}

/** Return the place that lies as far inside a line as `place` lies outside of it; the pixel at the edge is not repeated. */
function mirrored(place, length) {
  const period = Math.max(2 * (length - 1), 1), inside = Math.abs(place) % period;
  return Math.min(inside, period - inside);
}
