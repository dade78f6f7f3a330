// Writes documents of token ids as a directory of HDF5 shards and a manifest (token_shard.h has the layout of a shard).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "data/shards/manifest.h"

namespace smoe {

inline constexpr std::int64_t default_shard_tokens = std::int64_t{1} << 27;

struct ShardSetSummary {
  std::int64_t documents = 0, tokens = 0, shards = 0;
};

// Shards grow under temporary names and take their own in finish(), the manifest last: whenever the process ends, the
// directory holds a whole corpus or none. Not thread-safe.
//
// Errors: std::runtime_error for what a user causes (ids, directory, disk), std::logic_error for use after finish().
class ShardWriter {
 public:
  // Makes the directory. One that holds a manifest already is refused unless `overwrite`, which replaces its shards.
  // A shard ends before the document that would carry it past shard_tokens: documents are never cut, and one longer
  // than that has a shard of its own.
  ShardWriter(std::string directory, ShardSetInfo info, std::int64_t shard_tokens = default_shard_tokens,
              bool overwrite = false);
  ~ShardWriter();  // without finish(): removes the temporary files, and the directory if it was made here
  ShardWriter(ShardWriter&&) noexcept;
  ShardWriter& operator=(ShardWriter&&) noexcept;

  // loss_mask: empty (every token counts), or one entry a token, 0 where the token does not count as a target.
  // Throws on an id outside [0, vocab_size), naming document, position and value; the document is then left out whole.
  // A document without tokens is passed over and not counted.
  void add_document(std::span<const std::int32_t> ids, std::span<const std::uint8_t> loss_mask = {});

  // A document in pieces, for those too long to be held: append() as often as need be, then end_document(). Every token
  // counts as a target. The shards are those that add_document() of the whole would give, byte for byte, and the memory does
  // not depend on its length; until it is known to have outgrown the last shard it lies in a file without a name in the
  // directory. After a throw the writer is of no more use.
  void append(std::span<const std::int32_t> ids);
  void end_document();

  // So far; tokens: with those of a document that has begun.
  std::int64_t documents() const;
  std::int64_t tokens() const;

  // Throws if there were no tokens.
  ShardSetSummary finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace smoe
