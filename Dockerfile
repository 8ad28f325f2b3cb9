# The sidecar image: locked wheels, the package, nothing else. Runs as uid 65532 with a read-only root file system:
#   docker build -t replicator .        (`make image` does it with podman, docker or buildah)
#   docker run --read-only --tmpfs /tmp --cap-drop ALL -v state:/var/lib/replicator -v "$PWD/export:/export" \
#       --env-file config/replicator.env replicator
# For releases pin the digest as well, here and nowhere else: PYTHON_IMAGE=python:3.13-slim@sha256:<digest>
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS builder
# Another package index, such as a mirror: --build-arg PIP_INDEX_URL=... The hashes hold whatever it answers.
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build

# Tools that make the wheel: they come from a hash lock too, and stay behind in this stage.
COPY config/locks/demo.txt config/locks/runtime.txt config/locks/
RUN python -m venv /tools \
    && /tools/bin/pip install --no-deps --require-hashes --only-binary :all: -r config/locks/demo.txt \
    && python -m venv --without-pip /opt/replicator \
    && /tools/bin/pip --python /opt/replicator/bin/python install \
        --no-deps --require-hashes --only-binary :all: -r config/locks/runtime.txt

COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY replicator replicator
RUN /tools/bin/python -m hatchling build --target wheel \
    && /tools/bin/pip --python /opt/replicator/bin/python install --no-deps --no-index dist/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="replicator" \
    org.opencontainers.image.description="Keeps the /export directories of edge workloads and an S3 bucket in step" \
    org.opencontainers.image.licenses="Apache-2.0"

# The state directory is made here so that a fresh volume takes over its owner; /export is only a place to mount on.
RUN groupadd --gid 65532 replicator \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin replicator \
    && install --directory --owner 65532 --group 65532 --mode 0700 /var/lib/replicator \
    && install --directory --owner 65532 --group 65532 --mode 0755 /export
COPY --from=builder /opt/replicator /opt/replicator

ENV PATH=/opt/replicator/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
VOLUME ["/var/lib/replicator"]
EXPOSE 9477
STOPSIGNAL SIGTERM

# Asks the process itself, past any proxy; never fails for a remote fault. An empty REPLICATOR_HTTP_LISTEN switches
# HTTP off, and then there is nothing to ask. `operator` and `edge-api` listen elsewhere: run them with --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "import os, urllib.request as r; a = os.environ.get('REPLICATOR_HTTP_LISTEN', '127.0.0.1:9477'); a and r.build_opener(r.ProxyHandler({})).open(f'http://{a}/healthz', timeout=3)"]

ENTRYPOINT ["replicator"]
CMD ["run"]
