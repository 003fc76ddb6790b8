/** onnxruntime-web: WebGPU where there is a GPU, else WebAssembly with SIMD, and threads where the page is isolated. */

const VENDOR = new URL("vendor/", import.meta.url);

/**
 * Return {title, image(data, dims), number(value), landmarks, detector}: words for the page, makers of inputs, and both sessions.
 *
 * landmarks, detector: {input: tensor} -> promise of {output: tensor}. side: px of the net's input.
 * files: addresses of {landmarks, int8, detector}; int8 is the landmark net for WebAssembly, since WebGPU has no 8-bit convolutions.
 */
export async function openRuntime(files, side) {
  const gpu = await navigator.gpu?.requestAdapter();
  if (gpu) {
    try {
      return await open("webgpu", files, side);
    } catch (error) {
      console.warn(`WebGPU cannot run these nets (${error.message}); WebAssembly does`);
    }
  }
  return open("wasm", files, side);
}

async function open(provider, files, side) {
  const ort = await import(new URL(`ort.${provider}.min.mjs`, VENDOR).href);
  ort.env.wasm.wasmPaths = VENDOR.href;
  if (globalThis.crossOriginIsolated) {
    ort.env.wasm.numThreads = Math.min(navigator.hardwareConcurrency || 1, 4);  // by itself it takes half of the cores
  }
  const options = { executionProviders: [provider], logSeverityLevel: 3 };
  const net = provider === "wasm" ? files.int8 : files.landmarks;
  const landmarks = await ort.InferenceSession.create(net, options);  // one after the other: WebGPU refuses both at once
  const detector = await ort.InferenceSession.create(files.detector, options);
  const threads = ort.env.wasm.numThreads;  // one where the page is not isolated
  const runtime = {
    title: provider === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} thread${threads > 1 ? "s" : ""}`,
    image: (data, dims) => new ort.Tensor("uint8", data, dims),
    number: (value) => new ort.Tensor("float32", Float32Array.of(value), []),
    landmarks: (feeds) => landmarks.run(feeds),
    detector: (feeds) => detector.run(feeds),
  };
  const black = runtime.image(new Uint8Array(3 * side * side), [1, side, side, 3]);
  const small = runtime.image(new Uint8Array(3 * side * side), [side, side, 3]);
  await runtime.landmarks({ image: black });  // what a provider cannot run fails here, not at the first frame
  await runtime.detector({ image: small, threshold: runtime.number(0.5), overlap: runtime.number(0.5) });
  return runtime;
}
