#!/usr/bin/env bash
# Checks deploy/ and the Dockerfile without a cluster: schemas, policies, alert rules, agreement with the code.
# Brings its own tools. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ -x .venv/bin/python ] || { echo "tests/manifests/run.sh: no .venv here: run make setup" >&2; exit 1; }
tools=$(tests/manifests/tools.sh kubectl promtool)

# checkov needs many packages that nothing else needs: it gets an environment of its own, made again when its lock changes.
checkov=.artefacts/checkov
if ! cmp -s tests/manifests/checkov.lock "$checkov/made-from.lock"; then
  echo "tests/manifests/run.sh: installing checkov" >&2
  rm -rf "$checkov"
  .venv/bin/python -m venv "$checkov"
  "$checkov/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement tests/manifests/checkov.lock
  cp tests/manifests/checkov.lock "$checkov/made-from.lock"
fi

PATH=$tools CHECKOV=$PWD/$checkov/bin/checkov exec .venv/bin/python -m pytest tests/manifests "$@"
