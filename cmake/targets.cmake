# smoe_cold(TARGET): code that is compiled for longer than it ever runs. Nothing that computes a model is of this kind.
function(smoe_cold target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

# The release preset joins files, six at a time (CMAKE_UNITY_BUILD), because most of a file's time goes into headers and
# what they instantiate: names in anonymous namespaces must differ within a folder. The debug and asan presets compile
# each file alone, and OwnIncludes in tests/launch/house_test.cpp reads whether each has the includes that it needs.

# smoe_library(NAME sources...): a folder's static library, with the warnings and flags that all of them share.
function(smoe_flags target)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(${target} PRIVATE -Wall -Wextra $<$<BOOL:${SMOE_WERROR}>:-Werror>)
  if(CMAKE_UNITY_BUILD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # A class of one .cpp may hold what is in that file's anonymous namespace.
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE -Wno-restrict)  # GCC 12 warns of std::string concatenation (PR 105651)
    # With AVX-512, GCC 12.2 stores the constants {c, c, 0, 0} as {c, c, c, c}: it takes a wide constant whose upper
    # words are zero for a broadcast. Without moves from general to vector registers it does not try.
    # tests/kernels/toolchain_test.cpp fails where a compiler does this.
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
      target_compile_options(${target} PRIVATE -mtune-ctrl=^inter_unit_moves_to_vec)
    endif()
  endif()
  if(SMOE_MARCH)
    target_compile_options(${target} PRIVATE -march=${SMOE_MARCH})
  endif()
  if(SMOE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
  if(SMOE_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
                           -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  endif()
endfunction()

function(smoe_library name)
  add_library(smoe_${name} STATIC ${ARGN})
  smoe_flags(smoe_${name})
endfunction()

# smoe_test(NAME LIBS libs... SOURCES sources...): one GoogleTest binary a folder; ctest lists its cases by name.
function(smoe_test name)
  cmake_parse_arguments(ARG "" "" "LIBS;SOURCES" ${ARGN})
  add_executable(${name}_tests ${ARG_SOURCES})
  smoe_flags(${name}_tests)
  target_link_libraries(${name}_tests PRIVATE ${ARG_LIBS} GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name}_tests PRIVATE SMOE_SOURCE_DIR="${PROJECT_SOURCE_DIR}" SMOE_BINARY_DIR="${PROJECT_BINARY_DIR}")
  gtest_discover_tests(${name}_tests DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600
    ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
  get_property(included DIRECTORY PROPERTY TEST_INCLUDE_FILES)
  list(REMOVE_ITEM included ${PROJECT_SOURCE_DIR}/tests/costs.cmake)  # comes last, once
  set_property(DIRECTORY PROPERTY TEST_INCLUDE_FILES ${included} ${PROJECT_SOURCE_DIR}/tests/costs.cmake)
endfunction()
