// manifest.json of token shards: what was read is written so that it reads back to the same.
#include "data/shards/manifest.h"

#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {

bool run_manifest(std::string_view input) {
  const auto directory = folder("manifest"), other = folder("manifest-again");
  put(manifest_path(directory), input);
  Manifest manifest;
  if (!reads([&] { manifest = read_manifest(directory); })) return false;
  write_manifest(other, manifest);
  const Manifest again = read_manifest(other);
  require(again.info == manifest.info && again.shards == manifest.shards, "a manifest reads back to itself");
  for (const ShardEntry& shard : manifest.shards)
    require((directory / shard.file).parent_path() == directory, "a shard lies beside its manifest");
  return true;
}

}  // namespace smoe::fuzz
