# smsd's image. The first stage installs the locked dependencies and smsd into a virtual environment; the second is the
# plain Python image with that environment. To build on the same base every time, give its digest:
# --build-arg PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
# --without-pip: no build tool or installer gets into the final environment.
RUN python -m venv --without-pip /opt/venv && python -m venv --without-pip /opt/build
COPY requirements.lock deploy/build.lock ./
RUN pip --python /opt/venv/bin/python install --no-compile --only-binary :all: --require-hashes -r requirements.lock \
    && pip --python /opt/build/bin/python install --no-compile --only-binary :all: --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY smsd smsd
ARG VERSION=0.2.0
# The version label below must be true, so it is compared with the package's. The locked hatchling builds the wheel offline.
# unchecked-hash: bytecode does not depend on file times, and Python does not check it at every start. Modules that only
# twilio.rest needs, which smsd never imports, are not compiled. Tornado's tests and the sources of C modules are removed.
RUN test "$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' smsd/version.py)" = "${VERSION}" \
    && /opt/build/bin/python -c 'from hatchling.build import build_wheel; build_wheel("dist")' \
    && pip --python /opt/venv/bin/python install --no-compile --no-deps --no-index dist/*.whl \
    && rm -r /opt/venv/lib/python*/site-packages/tornado/test \
    && find /opt/venv/lib \( -name '*.c' -o -name '*.h' -o -name '*.pyi' -o -name '*.pyx' -o -name '*.px[di]' \) -delete \
    && python -m compileall -q --invalidation-mode unchecked-hash \
       -x '/(twilio/rest|aiohttp|attr|charset_normalizer|idna|jwt|multidict|requests|urllib3|yarl)/' /opt/venv/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=0.2.0
# The commit that the image is built from: --build-arg REVISION="$(git rev-parse HEAD)"
ARG REVISION=unknown
LABEL org.opencontainers.image.title="smsd" \
      org.opencontainers.image.description="Turns text messages into conversations: a Twilio messaging webhook that remembers" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# /app: for your own dialogues, e.g. -v ./mine.py:/app/mine.py:ro -e SMSD_DIALOGUE=mine:reply
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
# A number, because only a number tells Kubernetes that it is not root.
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# http.client: the image has no curl, and no proxy variable can divert it. `localhost` is tried over IPv4 and IPv6.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection(os.environ.get('SMSD_HOST', '').strip('*') or 'localhost', int(os.environ.get('SMSD_ADMIN_PORT') or 9090), timeout=2); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["smsd"]
CMD ["serve"]
