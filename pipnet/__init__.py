"""Faces and their landmarks in OpenCV images; numpy, OpenCV and onnxruntime only."""
