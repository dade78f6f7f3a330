// The strict reader of configuration files. Unknown, duplicate, mistyped, out-of-range and non-finite values are
// refused with file, line, column, what was expected and the nearest valid key, all of a file's problems at once.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "configs/config_error.h"
#include "configs/run_config.h"

namespace smoe {

inline constexpr std::size_t largest_config_bytes = 1 << 20;

// Reads file, then applies overrides of the form section.key=value in order (values are YAML; a list is replaced
// whole, or one entry is named: data.train.0.path=DIR). train.output_dir defaults to runs/NAME, NAME being the file's
// name without its extension. The result is valid (validate.h), but for the shape of a model that is taken `from`
// elsewhere. Throws ConfigError.
RunConfig read_config(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});

// The same for a text; source names it in messages and, without directory and extension, the run.
RunConfig parse_config(std::string_view yaml, const std::string& source,
                       const std::vector<std::string>& overrides = {});

}  // namespace smoe
