"""Training on a GPU: pictures are augmented on the device, and a step is replayed as one CUDA graph."""
