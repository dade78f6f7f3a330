# What `cmake --install` and CPack put where: the program, the scripts and configurations that a user of it needs, the documents.
# launch/bundle packs the same. Tests and benchmarks are a component of their own, which only launch/bundle --with-tests asks for.
#
# Nothing of ours is a shared library, so the installed program carries no path: where the libraries that it is linked with are
# not in the system's folders, -DCMAKE_INSTALL_RPATH_USE_LINK_PATH=ON keeps theirs.
include(GNUInstallDirs)
set(share ${CMAKE_INSTALL_DATADIR}/smoe)

install(TARGETS smoe RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT smoe)
install(PROGRAMS launch/mpirun launch/train.slurm launch/sweep.slurm DESTINATION ${share}/launch COMPONENT smoe)
install(DIRECTORY configs/ DESTINATION ${share}/configs COMPONENT smoe
  FILES_MATCHING PATTERN "*.yaml" PATTERN "*.prompts.txt")
install(FILES README.md SECURITY.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT smoe)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs COMPONENT smoe FILES_MATCHING PATTERN "*.md")

set(tests ${CMAKE_INSTALL_LIBEXECDIR}/smoe)
foreach(target kernels_tests gpu_tests goldens_tests communicator_ranks equivalence_ranks op_bench block_bench product_bench step_bench)
  if(TARGET ${target})
    install(TARGETS ${target} RUNTIME DESTINATION ${tests} COMPONENT tests EXCLUDE_FROM_ALL)
  endif()
endforeach()
install(DIRECTORY tests/goldens DESTINATION ${share}/tests COMPONENT test_data EXCLUDE_FROM_ALL
  FILES_MATCHING PATTERN "*.safetensors" PATTERN "*.json")
install(PROGRAMS tests/bench/gpu_peers.py DESTINATION ${share}/tests/bench COMPONENT test_data EXCLUDE_FROM_ALL)
install(DIRECTORY tests/bench/peers DESTINATION ${share}/tests/bench COMPONENT test_data EXCLUDE_FROM_ALL FILES_MATCHING PATTERN "*.py")
install(PROGRAMS launch/test-gpu launch/bench-gpu DESTINATION ${share}/launch COMPONENT test_data EXCLUDE_FROM_ALL)
install(FILES launch/common.sh launch/card.sh launch/bench_gpu.awk DESTINATION ${share}/launch COMPONENT test_data EXCLUDE_FROM_ALL)

# What stands for smoe, its tests and benchmarks where launch/test-gpu and bench-gpu are tried without a GPU: the same programs over the
# emulation of one, under the same names.
if(TARGET smoe_on_host)
  add_custom_target(emulated)
  foreach(name smoe gpu_tests goldens_tests communicator_ranks equivalence_ranks op_bench block_bench)
    string(REGEX REPLACE "_(tests|ranks)$" "" stem ${name})
    string(REPLACE "${stem}" "${stem}_on_host" twin ${name})
    if(TARGET ${twin})  # without SMOE_BENCH there are no benchmarks
      add_dependencies(emulated ${twin})
      install(PROGRAMS $<TARGET_FILE:${twin}> DESTINATION ${tests} RENAME ${name} COMPONENT emulated EXCLUDE_FROM_ALL)
    endif()
  endforeach()
endif()

# The Debian package. It depends on what dpkg-shlibdeps finds; mpirun itself is wanted for several ranks alone.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_VENDOR smoe)
set(CPACK_PACKAGE_CONTACT "the developers of smoe <smoe@example.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "trainer of sparse mixture-of-experts language models")
if(SMOE_MARCH STREQUAL "native")
  set(cpus "those of the machine that it was made on")
else()
  set(cpus "those of -march=${SMOE_MARCH}")
endif()
set(CPACK_PACKAGE_DESCRIPTION "smoe pretrains language models of the Mixtral family on one process or on many MPI ranks.
The CPUs that this package is for are ${cpus}.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS openmpi-bin)
include(CPack)
