#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make this checkout runnable: system libraries, .venv, pinned wheels, editable install of the package.
#
#   scripts/setup.sh runtime    what `make demo` needs
#   scripts/setup.sh dev        that and what `make test` needs
#
# Does only what is missing; a second call ends within a second. On a machine where ROS is sourced the
# environment sees that ROS (rclpy is not installed a second time). PYTHON=/path/to/python chooses the
# interpreter of a new environment.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
profile="${1:-runtime}"
venv="$root/.venv"
log="$venv/setup.log"
lock="$root/requirements/$profile.lock"
readonly required_mb=4000

say() { printf 'setup: %s\n' "$*"; }
die() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

has_sourced_ros() { [ -n "${ROS_DISTRO:-}" ] && [ -n "${AMENT_PREFIX_PATH:-}" ]; }

# Wheels of another environment must not leak into this one; a sourced ROS may.
unset PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX _ROS_WHEELS_BOOTSTRAP_COMPLETE
has_sourced_ros || unset PYTHONPATH LD_LIBRARY_PATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

check_machine() {
  [ "$(uname -s)" = Linux ] || die "This needs Linux; here is $(uname -s)."
  if [ "$(uname -m)" != x86_64 ] && ! has_sourced_ros; then
    die "The ROS wheels exist for x86_64 only; here is $(uname -m)." \
      "Install ROS 2 (Humble, Jazzy or Kilted), source its setup.bash and call this again."
  fi
}

# --- system libraries ---------------------------------------------------------------------------------

has_library() { [[ "$libraries" == *"$1 "* ]]; }

missing_packages() {
  local libraries
  libraries="$(/sbin/ldconfig -p 2>/dev/null || true)"
  has_library libEGL.so.1 || echo libegl1
  has_library libEGL_mesa.so.0 || has_library libEGL_nvidia.so.0 || echo libegl-mesa0
  has_library libGL.so.1 || echo libgl1
  compgen -G '/usr/lib*/*/dri/*_dri.so' >/dev/null || compgen -G '/usr/lib*/dri/*_dri.so' >/dev/null \
    || echo libgl1-mesa-dri
  has_library libgomp.so.1 || echo libgomp1
  has_library libusb-1.0.so.0 || echo libusb-1.0-0
  if ! find_python >/dev/null; then
    # A Python of the wrong version is reported later: no package here would mend it.
    if [ -z "${PYTHON:-}" ] && [ ! -x /usr/bin/python3 ]; then printf '%s\n' python3 python3-venv; fi
  elif ! "$(find_python)" -c 'import ensurepip, venv' 2>/dev/null; then
    "$(find_python)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
  fi
}

install_system_packages() {
  local packages sudo=()
  mapfile -t packages < <(missing_packages)
  [ "${#packages[@]}" -gt 0 ] || return 0
  command -v apt-get >/dev/null \
    || die "These system libraries are missing: ${packages[*]} (names as on Debian)." \
      "This is not Debian or Ubuntu, so install them by hand and call this again."
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
      sudo=(sudo)
    else
      die "System packages are missing and this user may not install them. Let an administrator run" \
        "    apt-get update && apt-get install -y ${packages[*]}" \
        "and call this again."
    fi
  fi
  say "installing system packages: ${packages[*]}"
  "${sudo[@]}" apt-get -qq update || say "apt-get update failed; trying with the lists that are there"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
    "${packages[@]}" >/dev/null \
    || die "apt-get could not install: ${packages[*]}. Its message is above."
}

# --- environment --------------------------------------------------------------------------------------

is_usable_python() {
  "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null || return 1
  ! has_sourced_ros || "$1" -c 'import rclpy' 2>/dev/null
}

find_python() {
  local candidate candidates=(python3 python3.12 python3.11 python3.10 /usr/bin/python3)
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    if command -v "$candidate" >/dev/null && is_usable_python "$candidate"; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

make_environment() {
  if [ -x "$venv/bin/python" ] && is_usable_python "$venv/bin/python" \
    && "$venv/bin/python" -m pip --version >/dev/null 2>&1 \
    && { [ ! -f "$venv/.setup-root" ] || [ "$(cat "$venv/.setup-root")" = "$root" ]; }; then
    return 0
  fi
  local python options=(--clear)
  if ! python="$(find_python)"; then
    if has_sourced_ros; then die "No Python here can import rclpy of ROS $ROS_DISTRO; is its rclpy installed?"; fi
    die "This needs Python 3.10, 3.11 or 3.12; found: $("${PYTHON:-python3}" --version 2>&1 || true)." \
      "Install one of them, or name it: PYTHON=/path/to/python3.12 make demo"
  fi
  local free_mb
  free_mb="$(df -Pm "$root" | awk 'NR == 2 { print $4 }')"
  [ "$free_mb" -ge "$required_mb" ] \
    || die "The environment needs $required_mb MB of disk; only $free_mb MB are free in $root."
  if has_sourced_ros; then options+=(--system-site-packages); fi
  say "creating .venv with $("$python" --version)"
  "$python" -m venv "${options[@]}" "$venv" || die "Python could not make $venv; its message is above."
  printf '%s\n' "$root" >"$venv/.setup-root"
}

# Pins for this machine: where ROS is sourced, its packages stay the distribution's own.
pins() {
  if has_sourced_ros; then grep -Ev '^(ros-|xacro==)' "$lock"; else cat "$lock"; fi
}

show_progress() { # of pip on stdin; one line that counts on a terminal, a line per 50 packages elsewhere
  local total="$1" count=0 line
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    case "$line" in
      Collecting* | Processing* | "Requirement already satisfied"*)
        count=$((count + 1))
        if [ -t 1 ]; then
          printf '\rsetup: fetched %d of about %d packages' "$count" "$total"
        elif [ $((count % 50)) -eq 0 ]; then
          say "fetched $count of about $total packages"
        fi
        ;;
      "Installing collected packages"*)
        if [ -t 1 ]; then printf '\n'; fi
        say "unpacking (about a minute)"
        ;;
    esac
  done
}

install_wheels() {
  local requirements="$venv/pins.txt"
  pins >"$requirements"
  say "installing pinned wheels of requirements/$profile.lock (some 600 MB to fetch)"
  : >"$log"
  # The lock is complete, so pip need not resolve anything.
  "$venv/bin/python" -m pip install --no-deps --progress-bar off --requirement "$requirements" 2>&1 \
    | show_progress "$(grep -c '==' "$requirements")" || {
    tail -n 15 "$log" >&2
    die "pip could not install the pinned wheels (last lines above, all of it in .venv/setup.log)." \
      "If it was the network, call this again: what is there already is kept."
  }
  # A torch built for CUDA asks for its libraries, one built for the CPU for nothing more.
  say "completing torch (a build for CUDA needs some 3 GB more, one for the CPU nothing)"
  "$venv/bin/python" -m pip install --quiet --progress-bar off --constraint "$requirements" \
    "$(grep -oE '^torch==[^ ;]+' "$requirements")" >>"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    die "pip could not complete torch (last lines above)."
  }
}

install_package() {
  say "installing vla_rl_ros into .venv (editable)"
  "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable "$root" \
    >>"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    die "pip could not install the package itself (last lines above, all of it in .venv/setup.log)."
  }
}

check_imports() {
  "$venv/bin/python" -c 'import franky, franky_sim, mujoco, onnxruntime, pyrealsense2, rclpy, scipy, torch' 2>>"$log" || {
    tail -n 5 "$log" >&2
    die "The environment is installed but does not work (message above). Remove .venv and call this again."
  }
}

hash_of() { { cat "$@"; printf '%s' "$root ${ROS_DISTRO:-}"; } | sha256sum | cut -d ' ' -f 1; }
is_done() { [ -x "$venv/bin/python" ] && [ -f "$venv/.setup-$1" ] && [ "$(cat "$venv/.setup-$1")" = "$2" ]; }

main() {
  case "$profile" in
    runtime | dev) ;;
    *) die "Unknown profile '$profile'; use runtime or dev." ;;
  esac
  local lock_hash package_hash
  lock_hash="$(hash_of "$lock")"
  package_hash="$(hash_of "$root/setup.py" "$root/package.xml")"
  if is_done "$profile" "$lock_hash" && is_done package "$package_hash"; then return 0; fi

  check_machine
  # One set-up at a time; the others find the work done.
  exec 9<"${BASH_SOURCE[0]}"
  flock 9
  if ! is_done "$profile" "$lock_hash"; then
    install_system_packages
    make_environment
    rm -f "$venv/.setup-package"
    install_wheels
  fi
  if ! is_done package "$package_hash"; then install_package; fi
  check_imports
  # The pins of dev include those of runtime.
  if [ "$profile" = dev ]; then hash_of "$root/requirements/runtime.lock" >"$venv/.setup-runtime"; fi
  printf '%s\n' "$lock_hash" >"$venv/.setup-$profile"
  printf '%s\n' "$package_hash" >"$venv/.setup-package"
  say "done in ${SECONDS} s"
}

main
