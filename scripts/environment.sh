# Sourced by demo, test and check: make a virtual environment in .venv once, with everything installed.
# Needs Python 3.11 or newer with venv and pip, and a package index. Running it again does nothing.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
ROOT=$PWD
VENV=${REJOINDER_VENV:-$ROOT/.venv}
# The extras of the environment that check, test and test-clients share. With another list each would install again.
EXTRAS=dev,docs,piper,noise,load,chat,redis,mcp,webrtc,tracing

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }

find_python() {
  local candidate
  for candidate in python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Rejoinder needs Python 3.11 or newer with the venv module; install it and run this again." >&2
  return 1
}

# install EXTRAS: install the checkout, editable, with these extras. Does nothing while its inputs are unchanged.
install() {
  local extras=$1 stamp python
  stamp="$VENV/.installed-$(cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)-${extras//,/-}"
  if [ -e "$stamp" ]; then
    return
  fi
  if [ ! -x "$VENV/bin/python" ]; then
    python=$(find_python) || exit 1
    say "Making a virtual environment in $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
  fi
  say "Installing Rejoinder with the extras $extras and its dependencies (about 2.2 GB; a few minutes the first time)"
  "$VENV/bin/python" -m pip install --quiet --upgrade "pip>=25"
  # torch first and pinned, so that no other package pulls another version. PyPI's wheel brings CUDA libraries; an index with
  # CPU builds does not (docs/getting-started.md).
  "$VENV/bin/python" -m pip install --progress-bar off --quiet "$(grep '^torch==' constraints.txt)"
  "$VENV/bin/python" -m pip install --progress-bar off --quiet --constraint constraints.txt --editable ".[$extras]"
  touch "$stamp"
}

use_environment() {
  export PATH="$VENV/bin:$PATH"
  export VIRTUAL_ENV=$VENV
}

# check_types: mypy over the packages, then over the programs that are not packages.
check_types() {
  mypy && MYPYPATH=scripts/reference mypy scripts/reference examples
}

# build_docs: build the documentation strictly, into a folder that is removed again.
build_docs() {
  local site status=0
  site=$(mktemp -d)
  NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet --site-dir "$site" || status=$?
  rm -rf "$site"
  return "$status"
}
