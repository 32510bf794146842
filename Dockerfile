# A node as an image. The configuration is mounted at /etc/coloq/node.toml and should set
#   data_dir = "/var/lib/coloq"      (a volume: policies, embedded store, admin key's hash)
#   [server] host = "0.0.0.0"        (the default, 127.0.0.1, is not reachable from outside the container)
#
#   docker build --target cpu  -t coloq:cpu  .
#   docker build --target cuda -t coloq:cuda .
#   docker run -p 8080:8080 -v ./node.toml:/etc/coloq/node.toml:ro -v coloq-data:/var/lib/coloq coloq:cpu

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 XDG_CACHE_HOME=/var/cache/coloq \
    HF_HOME=/var/cache/coloq/huggingface
RUN useradd --create-home --uid 10001 coloq \
    && mkdir -p /etc/coloq /var/lib/coloq /var/cache/coloq \
    && chown coloq:coloq /var/lib/coloq /var/cache/coloq
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY rewards rewards
COPY trainer trainer
COPY service service

FROM base AS cpu
# libnuma1: vLLM's CPU kernels link against it.
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
# torchvision, torchaudio and torchcodec come as CUDA builds that break `import transformers`; text needs none of them.
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu \
    && echo "torch==2.13.0+cpu" > constraints.txt \
    && pip install --constraint constraints.txt '.[cpu]' \
    && pip uninstall --yes torchvision torchaudio torchcodec
USER coloq
WORKDIR /var/lib/coloq
EXPOSE 8080
ENTRYPOINT ["coloq"]
CMD ["serve", "--config", "/etc/coloq/node.toml"]

FROM base AS cuda
# gcc: Triton compiles its launchers when the engine starts.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip install '.[cuda]'
USER coloq
WORKDIR /var/lib/coloq
EXPOSE 8080
ENTRYPOINT ["coloq"]
CMD ["serve", "--config", "/etc/coloq/node.toml"]
