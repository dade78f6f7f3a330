# What a bundle's commands do first; sourced by `smoe`, `bin/mpirun` and `bin/orted`, which set $here, the bundle's folder, and
# $name, what is being started. It refuses, in one line, where the bundle could not run, and tells its libraries where they are.

# A rank that is not the first lets the first speak: most often all have the same to say, and mpirun ends the others.
refuse() {
  [ "${OMPI_COMM_WORLD_RANK:-0}" = 0 ] || sleep 2
  printf '%s: error: %s\n' "$name" "$*" >&2
  exit 1
}

# Every file that a command may open. Documents and configurations may go.
while read -r sum file; do
  case $file in
    bin/* | lib/* | libexec/* | share/* | etc/*)
      [ -e "$here/$file" ] ||
        refuse "$here/$file is missing. A bundle is moved as a whole, and a link may lead to its smoe: unpack it anew"
      ;;
  esac
done <"$here/MANIFEST"

# The system's C library: programs run with that of their machine, or a newer one.
loader=/lib64/ld-linux-x86-64.so.2
[ -e "$loader" ] || refuse "found no glibc for x86-64 ($loader), on which this bundle is built: build smoe on this machine"
read -r glibc_wanted <"$here/lib/glibc"
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || glibc=$("$loader" --version 2>/dev/null) || glibc=
glibc=$(printf '%s\n' "$glibc" | sed -n '1{s/\.*$//;s/.* \([0-9][0-9]*\.[0-9][0-9]*\)$/\1/p;}')
if [ -n "$glibc" ] && { [ "${glibc%.*}" -lt "${glibc_wanted%.*}" ] ||
  { [ "${glibc%.*}" = "${glibc_wanted%.*}" ] && [ "${glibc#*.}" -lt "${glibc_wanted#*.}" ]; }; }; then
  refuse "found glibc $glibc on this machine, this bundle wants $glibc_wanted or newer: make the bundle on a system as old as this, or build smoe here"
fi

# Open MPI, PMIx and hwloc look for their parts where they were built to be, unless told; those of this machine are others.
export OPAL_PREFIX="$here" OPAL_SYSCONFDIR="$here/etc/openmpi"
export PMIX_PREFIX="$here/lib/pmix" PMIX_SYSCONFDIR="$here/lib/pmix/etc" HWLOC_PLUGINS_PATH="$here/lib/hwloc"
export PMIX_LIBDIR="$here/lib/pmix/lib" PMIX_PKGLIBDIR="$here/lib/pmix/lib/pmix"
export PMIX_DATADIR="$here/lib/pmix/share" PMIX_PKGDATADIR="$here/lib/pmix/share/pmix"
