#!/usr/bin/env bash
# Puts Coloq with its CPU engine and its development tools into .venv at the repository's root.
#
#   deploy/bootstrap.sh            # PYTHON=/path/to/python chooses the interpreter
#
# Idempotent: a stamp in .venv holds a digest of everything that decides what is installed; while it matches, nothing
# is done. Installs nothing outside .venv but, as root on Debian, the system library libnuma1 when it is missing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TORCH="torch==2.13.0+cpu"
readonly TORCH_CPU_INDEX="https://download.pytorch.org/whl/cpu"
readonly NUM_STEPS=5
readonly VENV=".venv"
readonly STAMP="$VENV/.coloq-stamp"
# Exists while packages are written: an environment in which that was cut short may be broken in ways pip does not see.
readonly UNFINISHED="$VENV/.coloq-unfinished"
readonly LOG="$VENV/bootstrap.log"
readonly HEARTBEAT_S=15

# Of the thousands of modules installed only those that run need compiling, and Python does that when it imports them.
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_COMPILE=1

child=""

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# A step runs in a process group of its own (set -m), which Ctrl-C does not reach: its end is passed on.
stop_child() {
  if [ -n "$child" ]; then kill -- "-$child" 2>/dev/null || true; fi
}
trap stop_child EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

digest() {
  { cat pyproject.toml deploy/bootstrap.sh; pwd; "$VENV/bin/python" -c 'import sys; print(sys.version)'; } | sha256sum
}

is_done() {
  [ -f "$STAMP" ] && [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMP")" = "$(digest 2>/dev/null)" ]
}

# version_of PYTHON: prints its version, or nothing when it does not run (version managers leave such shims behind).
version_of() {
  "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || true
}

# is_usable PYTHON: 3.11 to 3.13, able to make virtual environments.
is_usable() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
  local candidate version found=""
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if is_usable "$candidate"; then
      command -v "$candidate"
      return
    fi
    version="$(version_of "$candidate")"
    if [ -n "$version" ]; then found="$found $candidate is $version;"; fi
  done
  fail "Coloq needs Python 3.11, 3.12 or 3.13 with the venv module; found:${found:- no python3 that runs}" \
    "Install one (on Debian or Ubuntu: apt-get install python3.11 python3.11-venv), or name it: PYTHON=/path/to/python3.11 make test"
}

# step NUMBER TITLE COMMAND...: runs the command with its output in the log, shows that it is alive, times it.
step() {
  local number="$1" title="$2" started="$SECONDS" shown=0
  shift 2
  printf '[%s/%s] %s …\n' "$number" "$NUM_STEPS" "$title"
  set -m
  "$@" >>"$LOG" 2>&1 </dev/null &
  child=$!
  set +m
  while kill -0 "$child" 2>/dev/null; do
    sleep 0.5
    if [ $((SECONDS - started - shown)) -ge "$HEARTBEAT_S" ]; then
      shown=$((SECONDS - started))
      printf '      %s s\n' "$shown"
    fi
  done
  wait "$child" || {
    child=""
    # pip undoes what fails; only a first step leaves something half made.
    [ "$number" = 1 ] || rm -f "$UNFINISHED"
    # pip warns once per package about every index folder that lacks it.
    grep -v 'is ignored: it is neither' "$LOG" | tail -n 20 >&2
    fail "Setting up failed at: $title. The whole output is in $LOG."
  }
  child=""
  printf '      done in %s s\n' "$((SECONDS - started))"
}

clear_unusable_venv() {
  [ -e "$VENV" ] || return 0
  local version
  version="$(version_of "$VENV/bin/python")"
  if [ -e "$UNFINISHED" ]; then
    echo "An earlier set-up was interrupted: starting over."
    rm -rf "$VENV"
  elif [ -z "$version" ]; then
    echo "The Python that $VENV was made with is gone: starting over."
    rm -rf "$VENV"
  elif ! is_usable "$VENV/bin/python"; then
    fail "$VENV holds Python $version, but Coloq needs 3.11 to 3.13: remove $VENV and run this again"
  fi
}

make_venv() {
  if "$VENV/bin/python" -m pip --version; then return; fi
  "$python" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --upgrade pip
}

install_libnuma() {
  "$VENV/bin/python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get; then
    apt-get update && apt-get install -y --no-install-recommends libnuma1
    return
  fi
  echo "vLLM on a CPU needs the system library libnuma.so.1; on Debian or Ubuntu: sudo apt-get install libnuma1"
  return 1
}

# The configured package index goes first; PyTorch's own is asked only when that one has no CPU build.
install_torch() {
  local said status=0
  said="$("$VENV/bin/python" -m pip install --progress-bar off "$TORCH" 2>&1)" || status=$?
  printf '%s\n' "$said"
  if [ "$status" != 0 ] && grep -q 'No matching distribution found for torch' <<<"$said"; then
    status=0
    "$VENV/bin/python" -m pip install --progress-bar off --extra-index-url "$TORCH_CPU_INDEX" "$TORCH" || status=$?
  fi
  return "$status"
}

# The constraint keeps pip from replacing the CPU build by a newer one with gigabytes of CUDA libraries.
install_coloq() {
  printf '%s\n' "$TORCH" >"$VENV/constraints.txt"
  "$VENV/bin/python" -m pip install --progress-bar off --constraint "$VENV/constraints.txt" --editable '.[cpu,dev]'
}

# vLLM asks for torchvision, torchaudio and torchcodec, which the package index has as CUDA builds only: with them
# `import transformers` dies with "operator torchvision::nms does not exist". Text needs none of them.
finish() {
  "$VENV/bin/python" -m pip uninstall --yes torchvision torchaudio torchcodec
  "$VENV/bin/python" -c 'import torch; assert torch.version.cuda is None, "torch must be a CPU build"'
}

is_done && exit 0
exec 9<deploy/bootstrap.sh
flock --nonblock 9 || { echo "Another set-up of this folder is running: waiting for it."; flock 9; }
is_done && exit 0
[ "$(uname -s)" = Linux ] || fail "Coloq's CPU engine needs Linux, found $(uname -s)"
python="$(find_python)"
clear_unusable_venv
mkdir -p "$VENV"
: >"$UNFINISHED"
: >"$LOG"
printf 'Setting up %s with %s (once; about three minutes)\n' "$VENV" "$python"
step 1 "virtual environment" make_venv
step 2 "system libraries" install_libnuma
step 3 "torch, CPU build (200 MB)" install_torch
step 4 "Coloq, vLLM for CPUs and development tools (1 GB)" install_coloq
step 5 "clean-up and check" finish
rm -f "$UNFINISHED"
digest >"$STAMP"
printf 'Ready after %s s.\n' "$SECONDS"
