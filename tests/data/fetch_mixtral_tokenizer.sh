#!/usr/bin/env bash
# Fetches Mixtral's own tokenizer.model files (v1: 8x7B; v3: 8x22B Instruct) into a directory, for the tests that read them.
#   tests/data/fetch_mixtral_tokenizer.sh DIR
# They come from the Python package mistral-common (Apache-2.0), of which nothing is installed or run.
set -euo pipefail

# The name that it gets, its SHA-256, the name inside the package.
readonly files=(
  "tokenizer.model.v1 dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055 tokenizer.model.v1"
  "tokenizer.model.v3 9addc8bdce5988448ae81b729336f43a81262160ae8da760674badab9d4c7d33 mistral_instruct_tokenizer_240323.model.v3"
)

[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)

is_whole() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status; }

missing=()
for file in "${files[@]}"; do
  read -r name sha256 inside <<<"$file"
  if is_whole "$folder/$name" "$sha256"; then echo "$folder/$name is there"; else missing+=("$file"); fi
done
[ ${#missing[@]} -gt 0 ] || exit 0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if python3 -m pip --version >/dev/null 2>&1; then
  pip=(python3 -m pip)
else
  python3 -m venv "$scratch/venv"
  pip=("$scratch/venv/bin/python" -m pip)
fi
"${pip[@]}" download --quiet --disable-pip-version-check --no-deps --no-input --only-binary :all: \
  --dest "$scratch" mistral-common
for file in "${missing[@]}"; do
  read -r name sha256 inside <<<"$file"
  python3 - "$scratch" "$inside" <<'END'
import pathlib, sys, zipfile
scratch, name = pathlib.Path(sys.argv[1]), sys.argv[2]
wheel, = scratch.glob("mistral_common-*.whl")
(scratch / name).write_bytes(zipfile.ZipFile(wheel).read(f"mistral_common/data/{name}"))
END
  is_whole "$scratch/$inside" "$sha256" ||
    { echo "$0: the package's $inside has another SHA-256 than $sha256" >&2; exit 1; }
  mv "$scratch/$inside" "$folder/$name"
  echo "$folder/$name"
done
