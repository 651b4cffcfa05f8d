# autopeft on CUDA: docker build -t autopeft . && docker run --gpus all -v "$PWD:/work" autopeft run study.yaml
FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/autopeft
COPY . /src
RUN /opt/autopeft/bin/python -m pip install --no-cache-dir "/src[demo,onnx]" && rm -rf /src
ENV PATH=/opt/autopeft/bin:$PATH AUTOPEFT_CACHE=/work/.autopeft
WORKDIR /work
ENTRYPOINT ["autopeft"]
