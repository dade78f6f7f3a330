# What launch/bundle packs, part by part, into $bundle; sourced.
#
#   smoe, bin/mpirun, bin/orted   launch/bundled/: what is started, which checks and sets the environment
#   bin/LEVEL/                    the programs, compiled for CPUs of that level; bin/levels lists their flags
#   lib/, etc/, share/, libexec/  shared libraries, and Open MPI's components and texts where its prefix has them
#   launch/, configs/, docs/      as in the repository
#   MANIFEST                      each file's SHA-256; sha256sum -c MANIFEST checks them

test_programs=(kernels_tests gpu_tests goldens_tests communicator_ranks equivalence_ranks op_bench block_bench product_bench step_bench)
emulated_programs=(gpu_tests goldens_tests communicator_ranks equivalence_ranks op_bench block_bench)  # over an emulated GPU, which the two scripts are tried with
levels=()
origins=()      # the files of this system that were packed, for their licences
with_cuda=      # in words
glibc=2.33      # of which ld.so has the option --argv0, that bin/mpirun needs

cached() { sed -n "s/^$2:[A-Z]*=//p" "$1/CMakeCache.txt"; }

# keep FILE FOLDER [NAME]: copies a file of this system.
keep() {
  mkdir -p "$bundle/$2"
  cp -L "$1" "$bundle/$2/${3:-$(basename "$1")}"
  chmod u+w "$bundle/$2/${3:-$(basename "$1")}"
  origins+=("$1")
}

# pack_programs BUILD_DIR: what the install rules put into bin, into the folder of its level.
pack_programs() {
  local level installed=$scratch/installed program
  level=$(cached "$1" SMOE_MARCH)
  case $level in
    x86-64-v3 | x86-64-v4 | native) ;;
    *) die "$1 has SMOE_MARCH=$level; a bundle takes x86-64-v3, x86-64-v4 and native" ;;
  esac
  [ ! -e "$bundle/bin/$level" ] || die "two builds have SMOE_MARCH=$level"
  mkdir -p "$bundle/bin/$level"
  if [ -n "$emulated" ]; then
    cmake --install "$1" --prefix "$installed" --component emulated >/dev/null ||
      die "$1 has no emulated programs: cmake --build $1 --target emulated smoe"
    for program in smoe "${emulated_programs[@]}"; do
      strip "$installed/libexec/smoe/$program"
    done
    mv "$installed"/libexec/smoe/* "$bundle/bin/$level/"
    : >"$bundle/bin/emulated"
    rm -rf "$installed"
    return
  fi
  cmake --install "$1" --prefix "$installed" --component smoe --strip >/dev/null
  mv "$installed/bin/smoe" "$bundle/bin/$level/"
  if [ -n "$tests" ]; then
    for program in "${test_programs[@]}"; do
      [ -n "$(find "$1/tests" -name "$program" -type f)" ] || die "$1 has no $program: cmake --build $1 --target $program"
    done
    cmake --install "$1" --prefix "$installed" --component tests --strip >/dev/null
    mv "$installed"/libexec/smoe/* "$bundle/bin/$level/"
  fi
  rm -rf "$installed"
}

# pack_shared BUILD_DIR: what is the same for every level, and what starts it all.
pack_shared() {
  local installed=$scratch/installed program
  cmake --install "$1" --prefix "$installed" --component smoe >/dev/null
  mv "$installed"/share/doc/smoe/docs "$installed"/share/doc/smoe/*.md "$installed"/share/doc/smoe/LICENSE "$bundle/"
  mv "$installed"/share/smoe/* "$bundle/"
  cp "$root/launch/bundled/smoe" "$bundle/smoe"
  cp "$root/launch/bundled/environment.sh" "$bundle/launch/"
  mkdir -p "$bundle/libexec" "$bundle/lib"
  cp "$root/launch/bundled/openmpi" "$bundle/bin/mpirun"
  cp "$root/launch/bundled/openmpi" "$bundle/bin/orted"
  if [ -n "$tests" ]; then
    cmake --install "$1" --prefix "$installed" --component test_data >/dev/null
    mkdir -p "$bundle/tests"
    mv "$installed"/share/smoe/tests/* "$bundle/tests/"
    mv "$installed"/share/smoe/launch/* "$bundle/launch/"
    for program in "${test_programs[@]}"; do ln -s ../smoe "$bundle/tests/$program"; done
  fi
  rm -rf "$installed"
  with_cuda="without CUDA"
  if [ -n "$emulated" ]; then
    with_cuda="CUDA emulated on the CPU"
  elif [ "$(cached "$1" SMOE_CUDA)" != OFF ] && [ -n "$(cached "$1" CMAKE_CUDA_COMPILER)" ]; then
    with_cuda="CUDA for $(cached "$1" CMAKE_CUDA_ARCHITECTURES)"
  fi
}

# mpi_path WHAT: one of the folders that Open MPI was built with.
mpi_path() { ompi_info --parsable --path "$1" | sed -n 's/^path:[a-z_]*://p'; }

# Fabrics are left to TCP: their libraries belong to the drivers of a machine.
fabrics='lib(fabric|uc[pmst]|ibverbs|psm|psm2|psm_infinipath|oshmem)[.]so'

pack_openmpi() {
  local prefix components texts settings component
  command -v ompi_info >/dev/null || die "there is no ompi_info here, which tells where Open MPI's parts are; it is in openmpi-bin"
  prefix=$(mpi_path prefix) components=$(mpi_path pkglibdir) texts=$(mpi_path pkgdatadir) settings=$(mpi_path sysconfdir)
  keep "$(command -v orterun)" libexec mpirun
  keep "$(command -v orted)" libexec
  for component in $(ldd "$components"/mca_*.so | awk -v of="$fabrics" '
    function tell() { if (name != "" && !fabric) print name }
    /^\// { tell(); name = substr($1, 1, length($1) - 1); fabric = 0 }
    $1 ~ of { fabric = 1 }
    END { tell() }'); do
    keep "$component" "${components#"$prefix"/}"
  done
  mkdir -p "$bundle/${texts#"$prefix"/}" "$bundle/etc/openmpi"
  cp "$texts"/help-*.txt "$bundle/${texts#"$prefix"/}/"
  for component in "$settings"/*.conf "$settings/openmpi-default-hostfile"; do
    [ ! -f "$component" ] || cp "$component" "$bundle/etc/openmpi/"
  done
}

# pack_nvidia FOLDER: what smoe opens there, and what cuDNN opens itself. A library is kept by the name that it is opened by.
pack_nvidia() {
  local library file name found
  for library in libcublasLt libcudnn libnccl libnvrtc; do
    found=
    for file in "$1/$library"{,_*,-builtins}.so.*; do
      name=$(basename "$file")
      [ -f "$file" ] && readelf -dW "$file" 2>/dev/null | grep -F "Library soname: [$name]" >/dev/null || continue
      keep "$file" lib
      found=1
    done
    [ -n "$found" ] || die "$1 has no $library; --with-nvidia wants the folder of cuBLASLt, cuDNN, NCCL and NVRTC"
  done
  say "    NVIDIA's libraries are in it: where it goes, their licences hold"
}

# What comes with the system, and must be its own: glibc, and the driver's libraries.
of_system='^(linux-vdso|ld-linux.*|lib(c|m|mvec|pthread|dl|rt|resolv|util|anl|nsl|BrokenLocale|thread_db|nss_.*|cuda|nvidia-.*))\.so'

pack_libraries() {
  local library path pmix component newest
  while read -r library path; do
    [[ ! $library =~ $of_system ]] && [ ! -e "$bundle/lib/$library" ] || continue
    [ -f "$path" ] || die "what is packed needs $library, which is not here"
    keep "$path" lib "$library"
    case $library in libpmix.so.*) pmix=$(dirname "$(dirname "$(readlink -f "$path")")") ;; esac
  done < <(find "$bundle/bin" "$bundle/lib" "$bundle/libexec" -type f -print0 | { xargs -0 ldd 2>/dev/null || true; } |
    awk '$2 == "=>" && !seen[$1]++ { print $1, $3 }')
  # PMIx has components and texts of its own.
  if [ -n "${pmix:-}" ] && [ -d "$pmix/lib/pmix" ]; then
    for component in "$pmix"/lib/pmix/*.so; do keep "$component" lib/pmix/lib/pmix; done
    mkdir -p "$bundle/lib/pmix/etc" && cp -r "$pmix/share" "$bundle/lib/pmix/"
  fi
  newest=$(find "$bundle/bin" "$bundle/lib" "$bundle/libexec" -type f -print0 |
    { xargs -0 readelf -W --version-info 2>/dev/null || true; } |  # there are scripts among them
    sed -n 's/.*Name: GLIBC_\(2\.[0-9]*\).*/\1/p' | sort -Vu | tail -1)
  glibc=$(printf '%s\n' "$glibc" "$newest" | sort -V | tail -1)
  echo "$glibc" >"$bundle/lib/glibc"
}

# Of what was packed, and of the libraries that are linked into smoe itself.
pack_licences() {
  local package
  mkdir -p "$bundle/licences"
  command -v dpkg-query >/dev/null || { say "    no dpkg here: add the licences of what is in lib/ by hand" && return; }
  {
    # A file's package knows it by its own path, with /usr or without.
    for file in "${origins[@]}"; do readlink -f "$file" && readlink -f "$file" | sed 's|^/usr||'; done |
      { xargs dpkg-query -S 2>/dev/null || true; } | sed 's/[:,].*//'
    printf '%s\n' libopenblas-openmp-dev nlohmann-json3-dev libcli11-dev libxxhash-dev libjs-dygraphs
    [ -z "$tests" ] || printf '%s\n' libgtest-dev libbenchmark-dev
  } | sort -u | while read -r package; do
    [ ! -f "/usr/share/doc/$package/copyright" ] || cp -L "/usr/share/doc/$package/copyright" "$bundle/licences/$package"
  done
}

# The flags, as Linux names them, of the CPUs that each level's code runs on; the best level first.
flags_v3="cx16 lahf_lm popcnt ssse3 sse4_1 sse4_2 xsave movbe abm avx avx2 bmi1 bmi2 f16c fma"
flags_v4="$flags_v3 avx512f avx512bw avx512cd avx512dq avx512vl"
flags_here() {
  sed -n '/^flags/{s/^[^:]*://p;q;}' /proc/cpuinfo | tr ' ' '\n' |
    grep -E '^(cx16|lahf_lm|popcnt|s*sse[0-9_]*a?|xsave.*|movbe|abm|avx.*|amx.*|bmi.|f16c|fma4?|adx|v?aes|v?pclmulqdq|gfni|sha_ni|clwb)$' |
    xargs
}
write_levels() {
  local level
  for level in native x86-64-v4 x86-64-v3; do
    [ -d "$bundle/bin/$level" ] || continue
    levels+=("$level")
    case $level in
      native) echo "$level $(flags_here)" ;;
      x86-64-v4) echo "$level $flags_v4" ;;
      x86-64-v3) echo "$level $flags_v3" ;;
    esac >>"$bundle/bin/levels"
  done
}

write_manifest() {
  chmod -R a+rX "$bundle"
  (cd "$bundle" && find . -type f ! -name MANIFEST -printf '%P\n' | sort | xargs -d '\n' sha256sum) >"$scratch/manifest"
  mv "$scratch/manifest" "$bundle/MANIFEST"
}
