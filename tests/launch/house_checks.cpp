#include "tests/launch/house_checks.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <utility>

namespace smoe::house {
namespace {

namespace fs = std::filesystem;

// Whom a folder may include besides itself. A folder that is not here is new to the house: give it its place.
const std::map<std::string, std::set<std::string>> arrows = {
    {"kernels", {}},
    {"data", {}},
    {"parallel", {"kernels"}},
    {"model", {"kernels", "parallel"}},
    {"optim", {"kernels", "parallel"}},
    {"configs", {}},
    {"trainer", {"kernels", "parallel", "data", "model", "optim"}},
    {"launch", {"kernels", "parallel", "data", "model", "optim", "configs", "trainer"}},
};

// The rooms of the fuller folders, and whom a room may include of its own folder besides itself: "data/files" is a
// room, "kernels" what lies in no room. What lies in no room may include every open room of its folder.
struct Room {
  std::set<std::string> may_include;
  bool open = true;  // whether anything outside the room may include its headers
};
const std::map<std::string, Room> rooms = {
    {"kernels/cpu", {{"kernels"}, false}},
    {"kernels/cuda", {{"kernels"}, false}},
    {"parallel/comm", {{}}},
    {"data/files", {{}}},
    {"data/text", {{"data/files"}}},
    {"data/shards", {{"data/files"}}},
    {"data/import", {{"data/files", "data/text", "data/shards"}}},
    {"trainer/checkpoint", {{}}},
    {"trainer/record", {{"trainer/checkpoint"}}},
    {"trainer/convert", {{"trainer/checkpoint"}}},
    {"trainer/study", {{"trainer", "trainer/checkpoint", "trainer/record"}}},
    {"trainer/analysis", {{"trainer", "trainer/checkpoint", "trainer/record"}}},
    {"launch/generate", {{"launch"}, false}},
};

struct Library {
  const char* name;
  std::regex header;
  std::set<std::string> places;  // folders, or rooms
};

const std::vector<Library>& libraries() {
  static const std::vector<Library> list = {
      {"OpenBLAS", std::regex("(cblas|f77blas|lapacke|openblas_config)\\.h"), {"kernels/cpu"}},
      {"CUDA", std::regex("(cuda|cublas|cudnn|curand|cub/|nvtx3/).*"), {"kernels/cuda"}},
      {"MPI", std::regex("mpi\\.h"), {"parallel/comm"}},
      {"NCCL", std::regex("nccl\\.h"), {"kernels/cuda"}},
      {"HDF5", std::regex("(hdf5|H5[A-Za-z]*|hdf5_hl)\\.h"), {"data/shards"}},
      {"SentencePiece", std::regex("sentencepiece.*"), {"data/text", "data/import"}},
      {"JSON", std::regex("nlohmann/.*"), {"data/files"}},
      {"OpenSSL", std::regex("openssl/.*"), {"data/files"}},
      {"zlib", std::regex("zlib\\.h"), {"data/files"}},
      {"zstd", std::regex("zstd.*\\.h"), {"data/files"}},
      {"Apache Arrow", std::regex("(arrow|parquet)/.*"), {"data/import"}},
      {"xxHash", std::regex("xx(hash|h3)\\.h"), {"data/text"}},
      {"PCRE2", std::regex("pcre2.*\\.h"), {"data/text"}},
      {"yaml-cpp", std::regex("yaml-cpp/.*"), {"configs"}},
      {"CLI11", std::regex("CLI/.*"), {"launch"}},
      {"fmt", std::regex("fmt/.*"), {"data", "parallel", "model", "optim", "configs", "trainer", "launch"}},
      {"GoogleTest", std::regex("(gtest|gmock|rapidcheck).*"), {}},
      {"Google Benchmark", std::regex("benchmark/.*"), {}},
  };
  return list;
}

std::vector<std::string> lines_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

bool has_extension(const fs::path& path, std::initializer_list<const char*> extensions) {
  return std::any_of(extensions.begin(), extensions.end(), [&](const char* e) { return path.extension() == e; });
}

bool is_cpp(const fs::path& path) { return has_extension(path, {".h", ".hpp", ".cpp", ".cu", ".cuh"}); }

bool is_script(const fs::path& path) {
  if (has_extension(path, {".sh", ".py", ".cmake"}) || path.filename() == "CMakeLists.txt") return true;
  std::ifstream in(path);
  std::string first;
  return std::getline(in, first) && first.starts_with("#!");
}

bool is_binary(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string head(4096, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(in.gcount()));
  return head.find('\0') != std::string::npos;
}

std::string at(const fs::path& root, const fs::path& path, std::size_t line, const std::string& what) {
  return fs::relative(path, root).generic_string() + ":" + std::to_string(line) + ": " + what;
}

std::string folder_of(const fs::path& root, const fs::path& path) {
  const fs::path relative = fs::relative(path, root);
  return std::next(relative.begin()) == relative.end() ? "" : relative.begin()->string();
}

// "data/files" of data/files/json.h; the folder, of what lies in no room.
std::string place_of(const std::string& path) {
  const auto folder = path.find('/');
  if (folder == std::string::npos) return "";
  const auto room = path.find('/', folder + 1);
  return path.substr(0, room == std::string::npos ? folder : room);
}

// What is wrong with `place` including a header of its own folder that lies in `target`, or nothing.
std::string judge_rooms(const std::string& place, const std::string& target, const std::string& header) {
  if (place == target) return "";
  const auto from = rooms.find(place), to = rooms.find(target);
  const bool open = to == rooms.end() || to->second.open;
  if (open && (from == rooms.end() || from->second.may_include.contains(target))) return "";
  return place + " may not include " + header +
         (open ? ": the arrows between rooms run the other way" : ": that room is closed");
}

// What is wrong with a file of `place` including `header`, or nothing.
std::string judge(const std::string& place, const std::string& header) {
  if (header.starts_with("../") || header.find("/../") != std::string::npos)
    return "includes are written from the root";
  const std::string folder = place.substr(0, place.find('/')), target = place_of(header);
  const std::string target_folder = target.substr(0, target.find('/'));
  if (target_folder == "tests") return folder + " includes a test's header, " + header;
  if (arrows.contains(target_folder)) {
    if (target_folder == folder) return judge_rooms(place, target, header);
    if (const auto room = rooms.find(target); room != rooms.end() && !room->second.open)
      return place + " may not include " + header + ": that room is closed";
    if (arrows.at(folder).contains(target_folder)) return "";
    if (folder == "configs" && header.ends_with("_config.h")) return "";
    return folder + " may not include " + header +
           " (arrows: kernels <- parallel <- {model, optim} <- trainer <- launch)";
  }
  for (const Library& library : libraries()) {
    if (std::regex_match(header, library.header) && !library.places.contains(folder) &&
        !library.places.contains(place)) {
      return place + " may not include " + header + ": " + library.name + " belongs elsewhere";
    }
  }
  return "";
}

// A header, and names that a file may use only where its includes reach that header.
struct Names {
  const char* header;
  std::vector<const char*> names;
};

const std::vector<Names>& names_of_headers() {
  static const std::vector<Names> list = {
      {"algorithm",
       {"std::sort(", "std::min(", "std::max(", "std::clamp(", "std::find(", "std::find_if(", "std::any_of(",
        "std::all_of(", "std::fill(", "std::copy("}},
      {"array", {"std::array<"}},
      {"charconv", {"std::from_chars", "std::to_chars"}},
      {"chrono", {"std::chrono::"}},
      {"cmath", {"std::sqrt(", "std::exp(", "std::log(", "std::isfinite(", "std::isnan(", "std::abs(", "std::round("}},
      {"cstring", {"std::memcpy(", "std::memset(", "std::memcmp(", "std::strlen("}},
      {"filesystem", {"std::filesystem::"}},
      {"functional", {"std::function<"}},
      {"limits", {"std::numeric_limits<"}},
      {"map", {"std::map<"}},
      {"memory", {"std::unique_ptr<", "std::shared_ptr<", "std::make_unique<", "std::make_shared<"}},
      {"mutex", {"std::mutex", "std::lock_guard", "std::unique_lock"}},
      {"optional", {"std::optional<", "std::nullopt"}},
      {"set", {"std::set<"}},
      {"span", {"std::span<", "std::span("}},
      {"stdexcept", {"std::runtime_error", "std::logic_error"}},
      {"string", {"std::string ", "std::string&", "std::to_string("}},
      {"string_view", {"std::string_view"}},
      {"thread", {"std::thread", "std::jthread"}},
      {"vector", {"std::vector<"}},
      {"fmt/format.h", {"fmt::"}},
      {"mpi.h", {"MPI_Comm", "MPI_Request"}},
      {"nlohmann/json.hpp", {"nlohmann::"}},
      {"yaml-cpp/yaml.h", {"YAML::Node", "YAML::Load"}},
  };
  return list;
}

// The headers from outside the tree that a file includes, itself or through headers of the tree.
const std::set<std::string>& headers_of(const fs::path& root, const fs::path& path,
                                        std::map<fs::path, std::set<std::string>>& known) {
  const auto [entry, is_new] = known.try_emplace(path);
  if (!is_new) return entry->second;
  static const std::regex include(R"(\s*#\s*include\s*[<"]([^>"]+)[>"].*)");
  std::set<std::string> headers;
  for (const std::string& line : lines_of(path)) {
    std::smatch match;
    if (line.find("include") == std::string::npos || !std::regex_match(line, match, include)) continue;
    if (fs::is_regular_file(root / match[1].str())) {
      headers.merge(std::set(headers_of(root, root / match[1].str(), known)));
    } else {
      headers.insert(match[1]);
    }
  }
  return known[path] = std::move(headers);
}

// The line without comment and text in quotes.
std::string code_of(const std::string& line) {
  std::string code;
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (quoted && line[i] == '\\')
      ++i;
    else if (line[i] == '"')
      quoted = !quoted;
    else if (!quoted && line.compare(i, 2, "//") == 0)
      break;
    else if (!quoted)
      code += line[i];
  }
  return code;
}

}  // namespace

std::vector<fs::path> project_files(const fs::path& root) {
  static const std::set<std::string> left_out = {".git", "build", "runs", "data/corpus", "__pycache__", ".cache"};
  std::vector<fs::path> files;
  for (auto it = fs::recursive_directory_iterator(root); it != fs::recursive_directory_iterator(); ++it) {
    const std::string relative = fs::relative(it->path(), root).generic_string();
    if (left_out.contains(relative) || left_out.contains(it->path().filename().string()) ||
        it->path().extension() == ".pyc") {
      it.disable_recursion_pending();
    } else if (it->is_regular_file()) {
      files.push_back(it->path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

Violations check_include_direction(const fs::path& root) {
  static const std::regex include(R"(\s*#\s*include\s*[<"]([^>"]+)[>"].*)");
  Violations found;
  for (const fs::path& path : project_files(root)) {
    const std::string folder = folder_of(root, path);
    if (!is_cpp(path) || folder == "tests") continue;
    if (!arrows.contains(folder)) {
      found.push_back(at(root, path, 1, "the folder '" + folder + "' has no place among the arrows"));
      continue;
    }
    const std::string place = place_of(fs::relative(path, root).generic_string());
    if (place != folder && !rooms.contains(place)) {
      found.push_back(at(root, path, 1, "the room '" + place + "' has no place among the arrows"));
      continue;
    }
    const std::vector<std::string> lines = lines_of(path);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      std::smatch match;
      if (!std::regex_match(lines[i], match, include)) continue;
      if (std::string wrong = judge(place, match[1]); !wrong.empty()) found.push_back(at(root, path, i + 1, wrong));
    }
  }
  return found;
}

Violations check_own_includes(const fs::path& root) {
  Violations found;
  std::map<fs::path, std::set<std::string>> known;
  for (const fs::path& path : project_files(root)) {
    if (!is_cpp(path) || !arrows.contains(folder_of(root, path))) continue;
    const std::set<std::string>& headers = headers_of(root, path, known);
    std::set<std::string> missed;
    const std::vector<std::string> lines = lines_of(path);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const std::string code = code_of(lines[i]);
      for (const auto& [header, names] : names_of_headers()) {
        if (headers.contains(header) || missed.contains(header)) continue;
        for (const char* name : names) {
          if (code.find(name) == std::string::npos || !missed.insert(header).second) continue;
          found.push_back(at(root, path, i + 1, std::string(name) + " without <" + header + ">"));
        }
      }
    }
  }
  return found;
}

Violations check_tensor_memory(const fs::path& root) {
  static const std::set<std::string> communicators = {
      "parallel/comm/mpi_communicator.cpp", "parallel/comm/nccl_communicator.cpp",
      "parallel/comm/staged_communicator.cpp", "parallel/comm/self_communicator.cpp"};
  static const std::regex address(R"((\.|->)(raw|f32|i32|f64)\(\))");
  Violations found;
  for (const fs::path& path : project_files(root)) {
    const std::string folder = folder_of(root, path);
    if (!is_cpp(path) || folder == "kernels" || folder == "tests" ||
        communicators.contains(fs::relative(path, root).generic_string()))
      continue;
    const std::vector<std::string> lines = lines_of(path);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const std::string code = code_of(lines[i]);
      std::smatch match;
      if (std::regex_search(code, match, address))
        found.push_back(at(
            root, path, i + 1,
            match.str() + " of a tensor: its memory may be a device's (kernels/host_mirror.h, kernels/host_view.h)"));
    }
  }
  return found;
}

Violations check_file_length(const fs::path& root, int max_lines) {
  Violations found;
  for (const fs::path& path : project_files(root)) {
    if (!is_cpp(path) && !is_script(path)) continue;
    const std::size_t lines = lines_of(path).size();
    if (lines > static_cast<std::size_t>(max_lines)) {
      found.push_back(at(root, path, lines, "longer than " + std::to_string(max_lines) + " lines"));
    }
  }
  return found;
}

Violations check_readmes(const fs::path& root) {
  Violations found;
  std::set<std::string> folders = {"tests", "docs"};
  for (const auto& [folder, _] : arrows) folders.insert(folder);
  for (const auto& [room, _] : rooms)
    if (fs::exists(root / room)) folders.insert(room);
  for (const std::string& folder : folders) {
    if (!fs::is_regular_file(root / folder / "README.md")) found.push_back(folder + "/README.md: missing");
  }
  return found;
}

Violations check_machine_names(const fs::path& root) {
  static const std::regex machine_path(R"((^|[^\w.~/-])/(home|root|work|Users)/\w)");
  static const std::regex host_name(R"(\b[a-z][a-z0-9]*(-[a-z0-9]+)+\.(internal|local|lan|localdomain)\b)");
  Violations found;
  for (const fs::path& path : project_files(root)) {
    if (is_binary(path)) continue;
    const std::vector<std::string> lines = lines_of(path);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      if (lines[i].size() > 10'000) continue;  // data, not prose
      if (std::regex_search(lines[i], machine_path)) found.push_back(at(root, path, i + 1, "a path of one machine"));
      if (std::regex_search(lines[i], host_name)) found.push_back(at(root, path, i + 1, "a host name"));
    }
  }
  return found;
}

}  // namespace smoe::house
