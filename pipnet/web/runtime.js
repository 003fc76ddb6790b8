/** onnxruntime-web: WebGPU where there is a GPU, else WebAssembly with SIMD, and threads where the page is isolated. */

const VENDOR = new URL("vendor/", import.meta.url);

/**
 * Return {title, image(data, dims), number(value), landmarks, finder, detector}: words for the page, makers of inputs, and sessions.
 *
 * landmarks, finder, detector: {input: tensor} -> promise of {output: tensor}. sides: px of the inputs of both landmark nets.
 * files: addresses of {landmarks, int8, finder (or none), detector}; int8 is the landmark net for WebAssembly, since WebGPU has no 8-bit convolutions.
 */
export async function openRuntime(files, sides) {
  const gpu = await navigator.gpu?.requestAdapter();
  if (gpu) {
    try {
      return await open("webgpu", files, sides);
    } catch (error) {
      console.warn(`WebGPU cannot run these nets (${error.message}); WebAssembly does`);
    }
  }
  return open("wasm", files, sides);
}

async function open(provider, files, sides) {
  const ort = await import(new URL(`ort.${provider}.min.mjs`, VENDOR).href);
  ort.env.wasm.wasmPaths = VENDOR.href;
  if (globalThis.crossOriginIsolated) {
    ort.env.wasm.numThreads = Math.min(navigator.hardwareConcurrency || 1, 4);  // by itself it takes half of the cores
  }
  const options = { executionProviders: [provider], logSeverityLevel: 3 };
  const net = provider === "wasm" ? files.int8 : files.landmarks;
  const landmarks = await ort.InferenceSession.create(net, options);  // one after the other: WebGPU refuses several at once
  const finder = files.finder && await ort.InferenceSession.create(files.finder, options);
  const detector = await ort.InferenceSession.create(files.detector, options);
  const threads = ort.env.wasm.numThreads;  // one where the page is not isolated
  const runtime = {
    title: provider === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} thread${threads > 1 ? "s" : ""}`,
    image: (data, dims) => new ort.Tensor("uint8", data, dims),
    number: (value) => new ort.Tensor("float32", Float32Array.of(value), []),
    landmarks: (feeds) => landmarks.run(feeds),
    finder: (feeds) => finder.run(feeds),
    detector: (feeds) => detector.run(feeds),
  };
  const black = (side, ...batch) => runtime.image(new Uint8Array(3 * side * side), [...batch, side, side, 3]);
  await runtime.landmarks({ image: black(sides[0], 1) });  // what a provider cannot run fails here, not at the first frame
  if (finder) await runtime.finder({ image: black(sides[1], 1) });
  await runtime.detector({ image: black(sides[0]), threshold: runtime.number(0.5), overlap: runtime.number(0.5) });
  return runtime;
}
