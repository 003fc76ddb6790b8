# Training and inference on a CPU or an NVIDIA GPU. Not built here: no Docker was at hand.
#   docker build -t pipnet .
#   docker run --rm -v "$PWD/weights:/pipnet/weights" --shm-size=2g pipnet --train --test
#   docker run --rm -v "$PWD:/host" --entrypoint pipnet pipnet /host/photo.jpg --save /host/out.jpg
# With the NVIDIA Container Toolkit, add --gpus all: the wheels of torch bring CUDA. A smaller image for CPUs:
#   docker build --build-arg INDEX=https://download.pytorch.org/whl/cpu -t pipnet .
FROM python:3.11-slim
ARG INDEX=https://pypi.org/simple
WORKDIR /pipnet
COPY requirements.txt ./
# OpenCV without a desktop needs no libGL
RUN sed -i "s/^opencv-python>/opencv-python-headless>/" requirements.txt \
    && pip install --no-cache-dir --extra-index-url "$INDEX" -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps .
ENTRYPOINT ["python", "main.py"]
