// smoe logits --model DIR --tokens FILE.npy --out FILE.safetensors: the check against any other implementation.
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "data/files/files.h"
#include "data/import/npy.h"
#include "data/files/safetensors.h"
#include "launch/commands.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/inference.h"

namespace smoe {
namespace {

struct LogitsArguments {
  std::string model, adapter, tokens, out;
  std::int64_t threads = 0;
  std::string device = "auto", precision = "auto";
};

std::vector<std::int32_t> read_ids(const NpyFile& file, std::int64_t vocabulary) {
  std::vector<std::int32_t> ids;
  const auto values = file.values();
  ids.reserve(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= vocabulary)
      throw std::runtime_error(
          fmt::format("{}: token {} is {}, expected an id in [0, {})", file.path(), i, values[i], vocabulary));
    ids.push_back(static_cast<std::int32_t>(values[i]));
  }
  return ids;
}

void logits(const LogitsArguments& arguments) {
  const auto directory = find_model_directory(arguments.model);
  const HfConfig config = read_hf_config(directory);
  const ModelConfig& shape = config.model;
  const NpyFile file(arguments.tokens);
  const std::int64_t length = file.shape().back(), sequences = file.shape().size() == 2 ? file.shape().front() : 1;
  if (length == 0 || sequences == 0)
    throw std::runtime_error(fmt::format("{}: holds no ids, expected [B,S]", file.path()));
  const auto ids = read_ids(file, shape.vocab_size);

  const Mesh mesh = Mesh::single();
  InferenceModel model(directory, mesh, length, backend_of(arguments.device, arguments.threads), config,
                       precision_named(arguments.precision), adapter_of(arguments.adapter));
  std::vector<TensorSpec> specs{{"logits", TensorType::f32, {sequences, length, shape.vocab_size}}};
  const auto router_name = [](std::int64_t layer) { return "router_logits." + std::to_string(layer); };
  for (std::int64_t l = 0; l < shape.num_hidden_layers; ++l)
    specs.push_back({router_name(l), TensorType::f32, {sequences * length, shape.num_local_experts}});

  TemporaryPath path(arguments.out);
  auto writer = SafetensorsWriter::create(path.path(), specs);
  std::vector<float> host;
  const auto write = [&](const std::string& name, const Tensor& tensor, std::int64_t first) {
    host.resize(static_cast<std::size_t>(tensor.elements()));
    model.backend().copy_to_host(host.data(), tensor);
    writer.write_f32(name, first, host);
  };
  Mixtral::Saved saved;
  for (std::int64_t b = 0; b < sequences; ++b) {
    Context context = model.fresh_context();
    const auto row = std::span(ids).subspan(static_cast<std::size_t>(b * length), static_cast<std::size_t>(length));
    const TokenBatch batch = make_token_batch(context.backend, context.activations, 1, length, row);
    model.model().forward(context, batch, Keep::all, saved);
    const Tensor out = context.activations.take({length, shape.vocab_size});
    model.model().logits(context, saved.hidden, out);
    write("logits", out, b * length * shape.vocab_size);
    for (std::int64_t l = 0; l < shape.num_hidden_layers; ++l)
      write(router_name(l), saved.layers[static_cast<std::size_t>(l)].router.logits,
            b * length * shape.num_local_experts);
  }
  writer.finish();
  path.commit();
}

}  // namespace

void add_logits_command(CommandLine& line) {
  const auto arguments = std::make_shared<LogitsArguments>();
  const Command command =
      line.command("logits", "logits and router logits of given ids, for comparison with other software");
  command.path("--model", arguments->model, "Hugging Face directory, checkpoint, or run directory").required();
  command.path("--adapter", arguments->adapter, adapter_help);
  command.path("--tokens", arguments->tokens, ".npy file of [B,S] ids").required();
  command.path("--out", arguments->out, "safetensors file: logits [B,S,V] and router_logits.N [B*S,E], f32").required();
  command.option("--threads", arguments->threads, threads_help).show_default().range(0, 4096);
  command.option("--device", arguments->device, device_help).show_default().one_of({"auto", "cpu", "cuda", "check"});
  command.option("--precision", arguments->precision, precision_help).show_default().one_of({"auto", "fp32", "bf16"});
  command.runs([arguments] { logits(*arguments); });
}

}  // namespace smoe
