#!/usr/bin/env bash
# Fetches Mixtral's own tokenizer.model into a directory, for the tests that read it.
#   tests/data/fetch_mixtral_tokenizer.sh DIR
# It comes from the Python package mistral-common (Apache-2.0), of which nothing is installed or run.
set -euo pipefail

readonly sha256=dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055
readonly name=tokenizer.model.v1

[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)/$name

is_whole() { [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status; }

if is_whole "$target"; then
  echo "$target is there"
  exit 0
fi
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
python3 - "$scratch" "$name" <<'END'
import pathlib, sys, zipfile
scratch, name = pathlib.Path(sys.argv[1]), sys.argv[2]
wheel, = scratch.glob("mistral_common-*.whl")
(scratch / name).write_bytes(zipfile.ZipFile(wheel).read(f"mistral_common/data/{name}"))
END
is_whole "$scratch/$name" || { echo "$0: the package's $name has another SHA-256 than $sha256" >&2; exit 1; }
mv "$scratch/$name" "$target"
echo "$target"
