# What the CUDA backend is built with, besides nvcc; sourced by launch/setup. NVIDIA's own packages are named, never installed;
# the headers of cuDNN's frontend are fetched.

frontend=build/cudnn-frontend  # cmake/cuda.cmake looks there

# find_header NAME FOLDER...: whether one of them, or a folder that every compiler looks in, has it.
find_header() {
  local name=$1 folder
  for folder in "${@:2}" /usr/include /usr/include/x86_64-linux-gnu /usr/local/include; do
    [ ! -f "$folder/$name" ] || return 0
  done
  return 1
}

# fetch_frontend: the headers out of the wheel nvidia-cudnn-frontend (MIT), of which nothing is installed or run.
fetch_frontend() {
  local scratch status=0
  scratch=$(mktemp -d)
  unpack_frontend "$scratch" || status=1
  rm -rf "$scratch"
  return $status
}
unpack_frontend() {  # in a condition: every command says itself that the next is not to come
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-input --only-binary :all: \
    --dest "$1" 'nvidia-cudnn-frontend>=1.32,<2' || return
  python3 - "$1" <<'END' || return
import pathlib, sys, zipfile
scratch = pathlib.Path(sys.argv[1])
wheel, = scratch.glob("nvidia_cudnn_frontend-*.whl")
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        if name.startswith("include/") or "/licenses/" in name:
            archive.extract(name, scratch / "unpacked")
END
  [ -f "$1/unpacked/include/cudnn_frontend.h" ] || return
  mkdir -p "$root/build" && rm -rf "${root:?}/$frontend" && mv "$1/unpacked" "$root/$frontend"
}

# setup_cuda_parts [--check]: says what of them is missing; without --check, fetches what may be. None is a failure: the build
# does without.
setup_cuda_parts() {
  [ "${SMOE_CUDA:-AUTO}" != OFF ] || return 0
  local nvcc toolkit folders
  nvcc=$(command -v nvcc || true)
  [ -n "$nvcc" ] || nvcc=${CUDA_PATH:-/usr/local/cuda}/bin/nvcc
  [ -x "$nvcc" ] || return 0
  toolkit=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
  folders=("$toolkit/include" "$toolkit"/targets/*/include "${CUDA_PATH:-/usr/local/cuda}/include")  # nvcc may be a wrapper
  if ! find_header cublasLt.h "${folders[@]}"; then
    say "setup: nvcc is here and cublasLt.h is not, so CUDA is not built; NVIDIA's package libcublas-dev of the same version has it"
    return 0
  fi
  if ! find_header nccl.h "${folders[@]}"; then
    say "setup: nvcc is here and nccl.h is not, so ranks on GPUs are joined by MPI, through the host; NVIDIA's package libnccl-dev has it"
  fi
  if ! find_header cudnn.h "${folders[@]}"; then
    say "setup: nvcc is here and cudnn.h is not, so attention is built without cuDNN; NVIDIA's package libcudnn9-dev has it"
    return 0
  fi
  if find_header cudnn_frontend.h "$root/$frontend/include" "${folders[@]}"; then return 0; fi
  if [ "${1:-}" = --check ]; then
    say "setup: cudnn_frontend.h is not here, so attention is built without cuDNN; launch/setup fetches it into $frontend"
    return 0
  fi
  say "setup: fetching the headers of cuDNN's frontend into $frontend"
  fetch_frontend || say "setup: they are not to be had here, so attention is built without cuDNN"
}
