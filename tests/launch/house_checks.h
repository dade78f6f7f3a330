// The rules of the house that a program can check: who includes whom, how long a file may be, what each folder has,
// and what no file may mention. Each check returns one line a violation, "path:line: what is wrong", empty when clean.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace smoe::house {

using Violations = std::vector<std::string>;

// Files of the working tree that belong to the project: build outputs, runs, corpora and git's own are left out.
std::vector<std::filesystem::path> project_files(const std::filesystem::path& root);

// kernels <- parallel <- {model, optim} <- trainer <- launch; data includes none of ours; configs includes only the
// *_config.h of other folders; each third-party library is included by its one folder or room. Inside a folder, between
// its rooms: files <- {text, shards} <- import, checkpoint <- {record, convert}, and no room includes what lies beside the rooms
// but kernels/cpu and kernels/cuda, which nobody else includes. tests/ may include anything.
Violations check_include_direction(const std::filesystem::path& root);

// A file that names something of a library, standard or not, includes its header itself or through headers of this tree,
// so that it compiles alone. Of some twenty headers, by name.
Violations check_own_includes(const std::filesystem::path& root);

// A tensor's memory may be a device's: outside kernels/, the communicators of host memory and the tests nobody takes its
// address (raw(), f32(), i32(), f64() of kernels/tensor.h).
Violations check_tensor_memory(const std::filesystem::path& root);

// Sources and scripts have at most `max_lines` lines.
Violations check_file_length(const std::filesystem::path& root, int max_lines = 500);

// Every folder and every room of the house has a README.md.
Violations check_readmes(const std::filesystem::path& root);

// No absolute path of somebody's machine and no host name in any text file.
Violations check_machine_names(const std::filesystem::path& root);

}  // namespace smoe::house
