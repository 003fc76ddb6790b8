/** The worker as two promises: `opened` with the runtime's title, and `find` with the faces of a frame. */

export class Nets {
  constructor(settings) {
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.opened = this.next().then(({ ready }) => ready);
    this.worker.postMessage({ settings });
  }

  /** Forget all faces: the next frame is of another video. */
  restart() {
    this.worker.postMessage({ restart: true });
  }

  /** End the worker. */
  close() {
    this.worker.terminate();
  }

  /** Return {bitmap, faces, times} of a frame; the bitmap is lent to the worker. seconds: null for a picture. */
  find(bitmap, seconds) {
    const answer = this.next();
    this.worker.postMessage({ bitmap, seconds }, [bitmap]);
    return answer;
  }

  /** Return the worker's next answer; it gives one to each frame. */
  next() {
    return new Promise((resolve, reject) => {
      this.worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
      this.worker.onerror = (event) => reject(new Error(event.message ?? "the worker cannot be loaded"));
    });
  }
}
