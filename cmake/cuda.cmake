# Whether kernels/cuda is in this build (smoe_with_cuda), and by what.
#
# nvcc, cublasLt.h and cudnn.h come with NVIDIA's packages, of which nothing is linked but the runtime, statically: the libraries
# are opened when a GPU is used, so that one binary runs where they are and where they are not.
set(smoe_with_cuda OFF)
if(NOT SMOE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "SMOE_CUDA: found '${SMOE_CUDA}', expected AUTO, ON or OFF")
endif()
if(SMOE_CUDA STREQUAL "OFF" OR (SMOE_CUDA STREQUAL "AUTO" AND SMOE_SANITIZE))
  return()
endif()

# smoe_no_cuda(WHY): ends a build that must have it; tells one that need not.
macro(smoe_no_cuda why)
  if(SMOE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SMOE_CUDA=ON, but ${why}")
  endif()
  message(STATUS "CUDA is not in this build: ${why}")
  return()
endmacro()

if(NOT CMAKE_CUDA_COMPILER)
  find_program(SMOE_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
  if(NOT SMOE_NVCC)
    smoe_no_cuda("there is no nvcc (CMAKE_CUDA_COMPILER, CUDA_PATH, /usr/local/cuda or PATH); it is part of NVIDIA's CUDA toolkit")
  endif()
  # One that compiles nothing, as for a compiler of C++ that is too new for it, ends a build that must have it alone.
  unset(CMAKE_CUDA_COMPILER CACHE)
  set(ENV{CUDACXX} ${SMOE_NVCC})
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    smoe_no_cuda("${SMOE_NVCC} cannot compile here (${CMAKE_BINARY_DIR}/CMakeFiles/CMakeError.log says why)")
  endif()
endif()

# Code for Ampere and Hopper, and for what comes later as text that the driver compiles.
set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual CACHE STRING "the GPUs that kernels are compiled for")
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.26 does not know that nvcc 12 and later have it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)

set(toolkit ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
find_path(CUBLASLT_INCLUDE_DIR cublasLt.h HINTS ${toolkit})
if(NOT CUBLASLT_INCLUDE_DIR)
  smoe_no_cuda("nvcc is here and cublasLt.h is not; it comes with NVIDIA's package libcublas-dev of the same version")
endif()
set(smoe_with_cuda ON)

# Attention on cuDNN: its headers are NVIDIA's package, those of the frontend are fetched by launch/setup.
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${toolkit})
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${PROJECT_SOURCE_DIR}/build/cudnn-frontend/include ${toolkit})
foreach(header CUDNN CUDNN_FRONTEND)
  if(NOT ${header}_INCLUDE_DIR)
    string(TOLOWER ${header} name)
    list(APPEND smoe_cudnn_missing ${name}.h)
  endif()
endforeach()
list(JOIN smoe_cudnn_missing " and " smoe_cudnn_missing)

# Collectives between GPUs: the header alone, the library is opened where there are ranks.
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${toolkit})

# Ranges for a profiler: headers alone.
find_path(NVTX_INCLUDE_DIR nvtx3/nvToolsExt.h HINTS ${toolkit})
