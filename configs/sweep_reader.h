// A sweep's file: strict, as configurations are. Its keys are those of interface and of Weights & Biases' sweep files;
// what such a file says of W&B alone (program, command, project, entity, name, description) is passed over and told.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "configs/config_error.h"
#include "trainer/study/sweep_config.h"

namespace smoe {

// output_dir defaults to sweeps/NAME, NAME being the file's name without its extension. Whether the parameters' keys are
// keys of a configuration, and their values fit, is for who reads the base with them. Throws ConfigError.
// overrides: "runs=20", as the command line gives them.
SweepConfig read_sweep(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});
SweepConfig parse_sweep(std::string_view yaml, const std::string& source,
                        const std::vector<std::string>& overrides = {});

// YAML that reads back to the same sweep.
std::string print_sweep(const SweepConfig& sweep);

// What makes a study another than it was, "method: grid -> random", one a line. Values may be added to a list, and runs to
// a random study: that is the same one, going on.
std::vector<std::string> differences(const SweepConfig& was, const SweepConfig& is);

}  // namespace smoe
