// A model's weights as another directory would hold them, and the logits that a directory gives.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "data/files/json.h"
#include "data/files/tensor_directory.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/inference.h"

namespace smoe {

using NamedWeights =
    std::map<std::string, std::pair<std::vector<std::int64_t>, std::vector<float>>>;  // name -> shape, values

class ForeignWeights : public TrainingTest {
 protected:
  // What an untrained run exports.
  const std::filesystem::path& exported() {
    if (exported_.empty()) {
      auto c = config("run");
      c.train.steps = 0;
      EXPECT_EQ(train(c), 0);
      exported_ = checkpoint("run", 0) / "model";
    }
    return exported_;
  }
  NamedWeights weights() {
    const TensorDirectory directory(exported());
    NamedWeights all;
    for (const std::string& name : directory.names()) {
      const TensorInfo& info = directory.info(name);
      std::vector<float> values(static_cast<std::size_t>(info.elements()));
      directory.read_f32(name, values.data(), 0, info.elements());
      all[name] = {info.shape, values};
    }
    return all;
  }
  // A directory of these weights with the exported config.json, whose keys `more` replaces.
  std::filesystem::path write(const NamedWeights& all, const Json& more = Json::object(),
                              std::uint64_t max_shard_bytes = kDefaultMaxShardBytes) {
    const std::filesystem::path directory = root() / fmt::format("foreign-{}", written_++);
    std::filesystem::create_directory(directory);
    Json json = read_json_file(exported() / "config.json");
    json.update(more);
    write_json_file(directory / "config.json", json);
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : all) specs.push_back({name, TensorType::f32, tensor.first});
    auto writer = TensorDirectoryWriter::create(directory, specs, max_shard_bytes);
    for (const auto& [name, tensor] : all) writer.write_f32(name, 0, tensor.second);
    writer.finish();
    return directory;
  }
  std::vector<float> logits_of(const std::filesystem::path& directory) {
    InferenceModel model(directory, mesh(), 16, make_cpu_backend(1));
    const std::vector<std::int32_t> ids{1, 5, 60, 7, 7, 3, 22, 41};
    Context context = model.fresh_context();
    const TokenBatch batch = make_token_batch(context.backend, context.activations, 1, 8, ids);
    Mixtral::Saved saved;
    model.model().forward(context, batch, Keep::all, saved);
    const Tensor out = context.activations.take({8, 61});
    model.model().logits(context, saved.hidden, out);
    std::vector<float> host(static_cast<std::size_t>(out.elements()));
    model.backend().copy_to_host(host.data(), out);
    return host;
  }
  static NamedWeights renamed(const NamedWeights& all,
                              const std::vector<std::pair<std::string, std::string>>& changes) {
    NamedWeights out;
    for (const auto& [name, tensor] : all) {
      std::string other = name;
      for (const auto& [from, to] : changes)
        if (const auto at = other.find(from); at != std::string::npos) other.replace(at, from.size(), to);
      out[other] = tensor;
    }
    return out;
  }

 private:
  std::filesystem::path exported_;
  int written_ = 0;
};

}  // namespace smoe
