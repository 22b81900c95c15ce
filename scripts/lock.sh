#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pin what setup.py asks for, for Linux on CPython 3.10 to 3.12, into requirements/*.lock:
# runtime.lock is what `make demo` needs, dev.lock is that plus the checkers of `make test`.
# `scripts/lock.sh --upgrade` takes newer releases; without it the present pins stay where they fit.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uv
# The editable install is built with this setuptools; colcon needs it below 80.
# The shipped policy was trained and measured with this torch.
printf '%s\n' "setuptools<80" "torch==2.13.0" >"$work/build.in"

pin() { # pin NAME EXTRA...
  local name="$1" arguments=()
  shift
  for extra in "$@"; do arguments+=(--extra "$extra"); done
  if [ -f "requirements/$name.lock" ]; then cp "requirements/$name.lock" "$work/$name.txt"; fi
  "$work/venv/bin/uv" pip compile setup.py "$work/build.in" --output-file "$work/$name.txt" \
    "${arguments[@]}" "${options[@]}" --quiet --universal --python-version 3.10 --no-emit-index-url \
    --no-header --no-annotate
  {
    echo "# Made by scripts/lock.sh from setup.py. Do not edit."
    # The CUDA libraries belong to one build of torch only; scripts/setup.sh adds what the build needs.
    grep -v "sys_platform == 'win32'" "$work/$name.txt" | grep -Ev '^(nvidia-|cuda-|triton)' | sed -E \
      -e "s/ ; sys_platform (!= 'win32'|== 'linux')$//" \
      -e "s/ ; platform_python_implementation != 'PyPy'$//"
  } >"requirements/$name.lock"
  echo "requirements/$name.lock: $(grep -c '==' "requirements/$name.lock") pins"
}

cd "$root"
options=("$@")
pin runtime sim hardware learning remote ros
# What is tested must be what runs.
options+=(--constraint requirements/runtime.lock)
pin dev sim hardware learning remote ros dev
# uv may simplify a marker in one of the two; dev holds every line of runtime as it stands.
grep -hv '^#' requirements/runtime.lock requirements/dev.lock | LC_ALL=C sort -u >"$work/union.txt"
{ head -n 1 requirements/runtime.lock; cat "$work/union.txt"; } >requirements/dev.lock
