// Every byte is a token: unk 0, bos 1, eos 2, byte b is 3 + b; a vocabulary of 259. Needs no file.
#pragma once

#include "data/text/tokenizer.h"

namespace smoe {

class ByteTokenizer final : public Tokenizer {
 public:
  std::size_t next_cut(std::string_view text, std::size_t from) const override;
  void encode_part(std::string_view part, bool opens_text, std::vector<std::int32_t>& ids) const override;
  void encode_literal(std::string_view text, TextPlace place, std::span<const std::int32_t> unread,
                      std::vector<std::int32_t>& ids) const override;
  NamedToken token_named(std::string_view) const override { return {}; }  // its ids have no names
  std::string token_text(std::int32_t) const override { return {}; }
  void append_bytes(std::int32_t id, bool opens_text, std::string& out) const override;
  bool is_control(std::int32_t id) const override { return id < first_byte; }

  std::int64_t vocab_size() const override { return first_byte + 256; }
  std::int32_t unk() const override { return 0; }
  std::int32_t bos() const override { return 1; }
  std::int32_t eos() const override { return 2; }

  const std::string& name() const override;
  const std::string& sha256() const override;  // of the sentence that defines the ids, as there is no file
  const std::string& file() const override;

 private:
  static constexpr std::int32_t first_byte = 3;
};

}  // namespace smoe
