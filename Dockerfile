# smsd's image. Two stages: the first installs the locked dependencies and smsd into a virtual environment, the second
# is the plain Python image with that environment. For a build that can be repeated to the byte of its base, give a
# digest: --build-arg PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
# --without-pip: nothing that builds or installs goes along into the last stage's environment.
RUN python -m venv --without-pip /opt/venv && python -m venv --without-pip /opt/build
COPY requirements.lock deploy/build.lock ./
RUN pip --python /opt/venv/bin/python install --no-compile --only-binary :all: --require-hashes -r requirements.lock \
    && pip --python /opt/build/bin/python install --no-compile --only-binary :all: --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY smsd smsd
ARG VERSION=0.1.0
# The label below must not lie; the wheel is made offline, by the locked setuptools.
# unchecked-hash: the bytecode does not depend on the times of files, and is not looked up again at every start. What only
# twilio.rest needs, which smsd never imports, has none; Tornado's tests stay behind.
RUN test "$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' smsd/version.py)" = "${VERSION}" \
    && /opt/build/bin/python -c 'from setuptools.build_meta import build_wheel; build_wheel("dist")' \
    && pip --python /opt/venv/bin/python install --no-compile --no-deps --no-index dist/*.whl \
    && rm -r /opt/venv/lib/python*/site-packages/tornado/test \
    && python -m compileall -q --invalidation-mode unchecked-hash \
       -x '/(twilio/rest|aiohttp|attr|charset_normalizer|idna|jwt|multidict|requests|urllib3|yarl)/' /opt/venv/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="smsd" \
      org.opencontainers.image.description="Turns text messages into conversations: a Twilio messaging webhook that remembers" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
# /app: the place for dialogues of your own, e.g. -v ./mine.py:/app/mine.py:ro -e SMSD_DIALOGUE=mine:reply
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
# A number, because Kubernetes can tell only from a number that it is not root.
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# http.client: no curl in the image, and no proxy variable can lead it astray.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('SMSD_ADMIN_PORT') or 9090), timeout=2); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["smsd"]
CMD ["serve"]
