// Texts by their bytes: the longest of many that begins at a place in another text.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>

namespace smoe {

class TokenTrie {
 public:
  // content: not empty. value: what find() gives back; of the same content added twice, the first stays.
  void add(std::string_view content, std::size_t value) {
    std::uint32_t node = 0;
    for (const char c : content) {
      const auto [edge, fresh] = edges_.try_emplace(std::uint64_t{node} << 8 | static_cast<unsigned char>(c), nodes_);
      if (fresh) ++nodes_;
      node = edge->second;
    }
    ends_.emplace(node, value);
    first_bytes_.set(static_cast<unsigned char>(content.front()));
    longest_ = std::max(longest_, content.size());
  }

  bool empty() const { return ends_.empty(); }
  std::size_t longest() const { return longest_; }  // bytes

  // Of the longest content that begins there, among those whose value `takes`.
  template <class Takes>
  std::optional<std::size_t> find(std::string_view text, std::size_t at, const Takes& takes) const {
    if (at >= text.size() || !first_bytes_.test(static_cast<unsigned char>(text[at]))) return std::nullopt;
    std::optional<std::size_t> found;
    std::uint32_t node = 0;
    for (; at < text.size(); ++at) {
      const auto edge = edges_.find(std::uint64_t{node} << 8 | static_cast<unsigned char>(text[at]));
      if (edge == edges_.end()) break;
      node = edge->second;
      if (const auto end = ends_.find(node); end != ends_.end() && takes(end->second)) found = end->second;
    }
    return found;
  }
  std::optional<std::size_t> find(std::string_view text, std::size_t at) const {
    return find(text, at, [](std::size_t) { return true; });
  }

 private:
  // (node << 8 | byte) to node, the root being 0; what ends at a node.
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;
  std::unordered_map<std::uint32_t, std::size_t> ends_;
  std::uint32_t nodes_ = 1;
  std::bitset<256> first_bytes_;
  std::size_t longest_ = 0;
};

}  // namespace smoe
