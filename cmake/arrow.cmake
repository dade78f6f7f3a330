# Parquet is read where Apache Arrow is: in the system's folders (Apache's own packages libarrow-dev and libparquet-dev), or in
# SMOE_ARROW_ROOT: a prefix, or the folder of Python's pyarrow, whose wheel carries headers and libraries. Elsewhere
# data/import/no_parquet.cpp stands for parquet.cpp, and says so.
set(SMOE_ARROW_ROOT "" CACHE PATH "where Apache Arrow is: a prefix, or the folder of the Python package pyarrow")
set(smoe_with_parquet OFF)
find_path(ARROW_INCLUDE_DIR parquet/arrow/reader.h HINTS ${SMOE_ARROW_ROOT} PATH_SUFFIXES include)
foreach(name arrow parquet)
  string(TOUPPER ${name} upper)
  # A wheel has libarrow.so.N alone.
  file(GLOB versions ${SMOE_ARROW_ROOT}/lib${name}.so.* ${SMOE_ARROW_ROOT}/lib/lib${name}.so.*)
  list(TRANSFORM versions REPLACE ".*/" "")
  find_library(${upper}_LIBRARY NAMES ${name} ${versions} HINTS ${SMOE_ARROW_ROOT} PATH_SUFFIXES lib)
endforeach()
if(ARROW_INCLUDE_DIR AND ARROW_LIBRARY AND PARQUET_LIBRARY)
  set(smoe_with_parquet ON)
  add_library(arrow_parquet INTERFACE)
  target_include_directories(arrow_parquet SYSTEM INTERFACE ${ARROW_INCLUDE_DIR})
  target_link_libraries(arrow_parquet INTERFACE ${PARQUET_LIBRARY} ${ARROW_LIBRARY})
elseif(SMOE_ARROW_ROOT)
  message(FATAL_ERROR "SMOE_ARROW_ROOT is ${SMOE_ARROW_ROOT}, where parquet/arrow/reader.h, libarrow or libparquet is missing")
endif()
