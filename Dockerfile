# One image for every process of the server (API, workers, bootstrap, simulator), and for smsctl.
#   docker build -t smsgateway:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .
ARG PYTHON=3.11.15-slim-bookworm

# --- packages: exactly those of the lock file, each checked by its hash -----------------------------
FROM python:${PYTHON} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements.lock .
# Wheels only, so that nothing is compiled and no compiler is needed; pip itself stays behind.
RUN python -m venv --without-pip /opt/smsgateway \
    && python -m pip --python /opt/smsgateway/bin/python install \
        --require-hashes --only-binary :all: -r requirements.lock

# --- rooms: what runs, without tests and without the embedded stack --------------------------------
FROM python:${PYTHON} AS rooms
WORKDIR /app
COPY activities activities
COPY api api
COPY connectors connectors
COPY domain domain
COPY providers providers
COPY services services
COPY settings settings
COPY simulator simulator
COPY smpp smpp
COPY store store
COPY telemetry telemetry
COPY workers workers
COPY workflows workflows
COPY worker.py .
COPY sdks/python/src/smsgateway smsgateway
COPY smsctl/src/smsctl smsctl
# The image's file system is read-only when it runs, so bytecode has to be there before.
RUN python -m compileall -q --invalidation-mode unchecked-hash .

# --- the image -------------------------------------------------------------------------------------
FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="SMS gateway" \
      org.opencontainers.image.description="SMS gateway and mobile-alerts service orchestrated on Temporal" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.15-slim-bookworm"

# A user whose number no host gives to a person; nothing in the image belongs to it.
RUN groupadd --gid 10001 smsgateway \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin smsgateway \
    && python -m pip uninstall --yes --root-user-action ignore setuptools wheel pip \
    && printf '#!/bin/sh\nPYTHONPATH=/app exec python -m smsctl "$@"\n' >/usr/local/bin/smsctl \
    && chmod 0755 /usr/local/bin/smsctl

COPY --from=packages /opt/smsgateway /opt/smsgateway
COPY --from=rooms /app /app
WORKDIR /app

# A container is reached from outside of it, so the processes listen on all of its addresses. In the
# container of the API, smsctl needs only SMSCTL_KEY.
ENV PATH=/opt/smsgateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    SMSGATEWAY_API_HOST=0.0.0.0 \
    SMSGATEWAY_API_PORT=8080 \
    SMSGATEWAY_METRICS_HOST=0.0.0.0 \
    SMSGATEWAY_METRICS_PORT=9464 \
    SMSGATEWAY_TEMPORAL_METRICS_PORT=9465 \
    SMSCTL_API=http://127.0.0.1:8080

USER 10001:10001
EXPOSE 8080 9464 9465

# /metrics is what all processes have; the API is asked for more in docker-compose.yml.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:9464/metrics', timeout=4)"]

ENTRYPOINT ["python"]
CMD ["-m", "api"]
