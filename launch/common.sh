# Shared by the scripts of this folder; sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

export LC_ALL=C.UTF-8  # the same order of files everywhere

# Open MPI refuses to start as root unless told twice.
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

say() { printf '%s\n' "$*"; }

die() {
  printf '%s: %s\n' "launch/$(basename "$0")" "$*" >&2
  exit 1
}

# as_root COMMAND...: runs it with the rights to install; says what is wanted where they cannot be had.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root and there is no sudo here. As root, run: $*"
  fi
}

# stage NAME: opens a step; stage_end closes it with its time. The open step's name is what a failure reports.
stage_name=
stage() {
  stage_name=$1
  stage_start=$SECONDS
  printf '\n==> %s\n' "$1"
}
stage_end() {
  printf '    done in %d s\n' $((SECONDS - stage_start))
  stage_name=
}
report_failed_stage() {
  local status=$?
  if [ "$status" != 0 ] && [ -n "$stage_name" ]; then
    printf '\n%s: failed in the step "%s" (status %d); the lines above say why\n' "launch/$(basename "$0")" "$stage_name" "$status" >&2
  fi
}

# Elsewhere than on Debian the libraries are taken as given, and cmake says which one it misses.
install_missing() {
  if command -v dpkg-query >/dev/null; then
    "$root/launch/setup"
  else
    say "    not a Debian system: installing nothing"
  fi
}
