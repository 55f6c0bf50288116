#!/bin/bash
# Install Rejoinder with locked dependencies into a virtual environment. The Dockerfiles here run these steps; on machines
# without containers, run them in this order.
#   install.sh dependencies cpu|gpu FOLDER   make the virtual environment and install every dependency
#   install.sh package FOLDER                install Rejoinder itself from this checkout
#   install.sh check FOLDER                  check that the packages fit together and the command starts
#   install.sh requirements cpu|gpu          print the requirements that the first step installs
# Variables: PYTHON, the interpreter of the environment (default python3.11). All nodes of a cluster need the same Python,
# patch release included. pip's own variables apply: docs/getting-started.md says how to get torch without CUDA.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# requirements cpu|gpu: for cpu, those of pyproject.toml with the extra piper; for gpu, every package of its lock.
requirements() {
  case "$1" in
    cpu)
      "${PYTHON:-python3.11}" - "$checkout/pyproject.toml" <<'PYTHON'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["piper"], sep="\n")
PYTHON
      ;;
    gpu) grep -v '^#' "$checkout/constraints-gpu.txt" ;;
    *) echo "install.sh: $1 is not cpu or gpu" >&2; return 2 ;;
  esac
}

dependencies() {
  local kind=$1 folder=$2 list
  list=$(mktemp)
  requirements "$kind" >"$list"
  "${PYTHON:-python3.11}" -m venv "$folder"
  set -- "$folder/bin/python" -m pip install --no-cache-dir --progress-bar off
  case "$kind" in
    # The lock of all environments pins each version; pip chooses the packages.
    cpu) "$@" --constraint "$checkout/constraints.txt" --requirement "$list" ;;
    # The lock is the whole environment, so nothing is left to choose.
    gpu) "$@" --no-deps --requirement "$list" ;;
  esac
  rm "$list"
}

package() {
  [ -x "$1/bin/python" ] || "${PYTHON:-python3.11}" -m venv "$1"
  "$1/bin/python" -m pip install --no-cache-dir --progress-bar off --no-deps "$checkout"
}

check() {
  # In another folder, where Python cannot import from the checkout.
  cd /
  "$1/bin/python" -m pip check
  "$1/bin/rejoinder" --help >/dev/null
  "$1/bin/rejoinder" doctor --environment
}

step=${1:?usage: install.sh dependencies|package|check|requirements ...}
shift
case "$step" in
  dependencies) dependencies "${1:?cpu or gpu}" "${2:?folder}" ;;
  package) package "${1:?folder}" ;;
  check) check "${1:?folder}" ;;
  requirements) requirements "${1:?cpu or gpu}" ;;
  *) echo "install.sh: no step $step" >&2; exit 2 ;;
esac
