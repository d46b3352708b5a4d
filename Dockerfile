# The worker's image. The lock's hashes hold for everything that is installed: the wheels are fetched under
# --require-hashes once, and both environments are made from those wheels alone.

FROM python:3.12-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

COPY requirements.lock ./
RUN pip download --quiet --require-hashes --only-binary :all: --requirement requirements.lock --dest /wheels
RUN python -m venv /build \
    && /build/bin/pip install --quiet --no-index --find-links /wheels build hatchling

COPY . .
RUN /build/bin/python -m build --wheel --no-isolation --outdir /dist . \
    && python -m venv /opt/perdure \
    && /opt/perdure/bin/pip install --quiet --no-index --find-links /wheels "$(echo /dist/*.whl)[postgres,redis]"

FROM python:3.12-slim

LABEL org.opencontainers.image.title="perdure" \
      org.opencontainers.image.description="Worker for durable AI agents on Temporal" \
      org.opencontainers.image.licenses="MIT"

# /app is where the module named by PERDURE_APP is mounted or copied. /data is for a store in SQLite: a named volume
# that is mounted there takes over the owner that the folder has here.
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin perdure \
    && install --directory --owner perdure --group perdure /app /data

COPY --from=build /opt/perdure /opt/perdure
COPY deploy/healthcheck.py /opt/perdure/healthcheck.py

ENV PATH=/opt/perdure/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PERDURE_HEALTH_PORT=8080 \
    PERDURE_LOG=json

WORKDIR /app
USER perdure
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/opt/perdure/healthcheck.py"]
CMD ["perdure", "worker"]
