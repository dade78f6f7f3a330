// Megatron's pair of index and data, and every token of every document.
#include <cstdint>
#include <vector>

#include "data/import/import_megatron.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {

bool run_megatron(std::string_view input) {
  const auto directory = folder("megatron");
  put(directory / "fuzz.idx", take_part(input));
  put(directory / "fuzz.bin", input);
  return reads([&] {
    const MegatronFile file(directory / "fuzz.idx");
    require(static_cast<std::uint64_t>(file.tokens()) * file.bytes_per_token() == input.size(),
            "the tokens fill the data");
    for (std::int64_t document = 0; document < file.documents(); ++document) {
      const std::int64_t begin = file.document_offset(document), end = file.document_offset(document + 1);
      require(begin <= end, "documents follow one another");
      std::vector<std::int64_t> ids(static_cast<std::size_t>(end - begin));
      file.read(begin, end - begin, ids.data());
    }
  });
}

}  // namespace smoe::fuzz
