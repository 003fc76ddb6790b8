/**
 * Sources of frames: camera, picture, video.
 *
 * A source is {name, still, live, frames, close}; `frames` yields {bitmap, seconds}, seconds from the start, null for a picture.
 */

const SIZE = { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" };  // enough for faces, and fast

/** Return the camera as a source; fails where there is none or the user refuses it. */
export async function openCamera() {
  if (!navigator.mediaDevices) throw new Error("The browser gives the camera only to pages of this machine or over https.");
  const stream = await navigator.mediaDevices.getUserMedia({ video: SIZE, audio: false });
  const video = await play((element) => { element.srcObject = stream; });
  return source("camera", video, true, () => stream.getTracks().forEach((track) => track.stop()));
}

/** Return a picture's or video's file as a source; fails where the browser cannot read it. */
export async function openFile(file) {
  if (file.type.startsWith("image/")) {
    const bitmap = await createImageBitmap(file).catch(() => { throw new Error(`${file.name} is no picture that the browser reads.`); });
    return { name: file.name, still: true, live: false, async* frames() { yield { bitmap, seconds: null }; }, close() {} };
  }
  const address = URL.createObjectURL(file);
  try {
    const video = await play((element) => { element.src = address; });
    return source(file.name, video, false, () => URL.revokeObjectURL(address));
  } catch {
    URL.revokeObjectURL(address);
    throw new Error(`${file.name} is no picture or video that the browser plays.`);
  }
}

/** Return a playing video element that `attach` gives its frames. */
async function play(attach) {
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  attach(video);
  await video.play();
  return video;
}

function source(name, video, live, release) {
  let stop;
  const stopped = new Promise((resolve) => {
    stop = () => resolve(null);
    video.addEventListener("ended", stop);
  });
  return {
    name,
    still: false,
    live,
    pause: (paused) => (paused ? video.pause() : video.play()),
    async* frames() {
      const begin = performance.now();
      for (;;) {
        const time = await Promise.race([stopped, nextFrame(video)]);
        if (time === null) return;
        yield { bitmap: await createImageBitmap(video), seconds: live ? (performance.now() - begin) / 1000 : time };
      }
    },
    close() {
      stop();
      video.pause();
      release();
    },
  };
}

/** Return the time of the video's next frame. */
function nextFrame(video) {
  return new Promise((resolve) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_, { mediaTime }) => resolve(mediaTime));
    else requestAnimationFrame(() => resolve(video.currentTime));
  });
}
