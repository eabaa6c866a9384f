#!/usr/bin/env bash
# Builds the image from the Dockerfile and tests it: hardened, replicated, behind a proxy, as pods, scraped. Brings its own
# container engine, base image, kubectl, Prometheus and nginx. Needs root and a Debian machine. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
engine=tests/container/engine.sh

[ -x .venv/bin/python ] || { echo "tests/container/run.sh: no .venv here: run make setup" >&2; exit 1; }
tools=$(tests/manifests/tools.sh kubectl prometheus nginx)
$engine setup
version=$(.venv/bin/python -c 'from smsd.version import VERSION; print(VERSION)')
echo "tests/container/run.sh: building localhost/smsd:$version" >&2
$engine build "localhost/smsd:$version" --build-arg "VERSION=$version" --quiet >/dev/null

MEMCACHED_IMAGE=$($engine memcached) PATH=$tools exec $engine alone .venv/bin/python -m pytest tests/container "$@"
