# What the long tests cost, in seconds: ctest -j starts the dearest first, and a fresh clone has no times of its own to go
# by. The first pattern that matches a test's name counts; a test that none matches takes less than a second or two.
# From ctest's own times (build/release/Testing/Temporary/CTestCostData.txt: name, runs, mean) of the release build, one
# test at a time on one core; those of Slurm, which was not installed there, are a guess. Only the order matters.
set(smoe_costs
  "^Slurm\\." 60
  "^GpuScripts\\.right" 100
  "^Faults\\." 32
  "^Collectives\\.8" 40
  "^CollectivesWithChecks" 35
  "^equivalence\\.large_vocabulary" 28
  "^LayoutRuns" 25
  "^equivalence\\.[a-z_0-9]+\\.[68]_ranks" 15
  "^Watchdog\\.RanksThatShareFewCores" 12
  "^equivalence_of_frozen\\.[48]_ranks" 15
  "^(Collectives|equivalence_finds|equivalence_of_scopes|equivalence_of_frozen)\\." 10
  "^equivalence\\.[a-z_0-9]+\\.4_ranks" 8
  "^adversarial_routing\\.8" 15
  "^(adversarial_values|refused_steps)\\.([48]|some)" 6
  "^(adversarial|refused)" 4
  "^(equivalence|WatchdogParts|StepTraffic)\\." 6
  "^(Watchdog|RanksBadInput)\\." 5
  "^(CommandLine\\.layouts|CommandBadInput\\.disk_full|Reshard\\.)" 5
  "^Processes\\.(alone|each|omp|taskset|what)" 12
  "^(ModelFiles|CommandUpcycle|CommandTokens|CommandChat|CommandPacking)\\." 4
  "^CheckedRuns\\." 8
  "^Bundles\\.(a_|an_|nodes|one_line|tests)" 8
  "^cuda_on_host\\.StepTrace" 7
  "^bench_(smoke|block)" 5
  "^TraceBackendOps\\." 4
  "^Ops/PlantedErrors\\.AreSeen/attention_backward" 20
  "^Ops/PlantedErrors\\.AreSeen/attention" 5
  "^Inputs\\.GiveTheSame" 8
  "^GradientReducer\\.8" 3
  "^(Processes|CommandLine|ReportInBrowser|StudyInBrowser|Prepare|SafetensorsProperty)\\." 3
  "^(SteeredRouter|Evaluation|ManyShards|ConsecutiveRuns|OddSteps|Rehearsal)\\." 3
  "^(DataInput\\.(eval|train)|CommandBadInput\\.(model|generate|logits|eval)|Steps/Allocation\\.|TokenizerBadInput\\.Survives)" 2
)

function(smoe_set_costs)
  foreach(test IN LISTS ARGN)
    set(patterns ${smoe_costs})
    while(patterns)
      list(POP_FRONT patterns pattern cost)
      if(test MATCHES "${pattern}")
        set_tests_properties("${test}" PROPERTIES COST ${cost})
        break()
      endif()
    endwhile()
  endforeach()
endfunction()

# ctest reads this file too, after it has read which tests the GoogleTest binaries of a folder have.
if(NOT CMAKE_PROJECT_NAME)
  get_cmake_property(variables VARIABLES)
  foreach(variable IN LISTS variables)
    if(variable MATCHES "_tests_TESTS$")
      smoe_set_costs(${${variable}})
    endif()
  endforeach()
endif()
