# Third-party libraries, all from the distribution. Each is linked by the one folder that may use it.
find_package(Threads REQUIRED)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(fmt REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(OpenSSL REQUIRED)
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
find_package(ZLIB REQUIRED)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)

# FindHDF5 offers the C library as variables; a target keeps its include path out of the other folders.
add_library(hdf5_c INTERFACE)
target_include_directories(hdf5_c SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(hdf5_c INTERFACE ${HDF5_C_LIBRARIES})

include(cmake/arrow.cmake)

if(SMOE_FUZZ)
  return()  # the readers need no more
endif()

find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(MPI REQUIRED COMPONENTS C)
find_package(CLI11 REQUIRED)
if(SMOE_TESTS)
  find_package(GTest REQUIRED)
endif()
if(SMOE_BENCH)
  find_package(benchmark REQUIRED)
endif()

# OpenBLAS, the OpenMP build, linked statically: its choice of kernel for the CPU is made when it initialises,
# and kernels/cpu/blas.cpp corrects that choice just before (see there).
find_path(OPENBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES x86_64-linux-gnu/openblas-openmp openblas-openmp openblas REQUIRED)
find_library(OPENBLAS_LIBRARY NAMES libopenblas.a PATH_SUFFIXES openblas-openmp REQUIRED)
add_library(openblas_openmp INTERFACE)
target_include_directories(openblas_openmp SYSTEM INTERFACE ${OPENBLAS_INCLUDE_DIR})
target_link_libraries(openblas_openmp INTERFACE ${OPENBLAS_LIBRARY} OpenMP::OpenMP_CXX Threads::Threads m)
