// The ids of short pieces of text that came before. Natural text repeats a small set of words, so most are found here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace smoe {

// Thread-safe. Bounded: a stripe that is full is emptied, which keeps the words of the text now being read.
class WordCache {
 public:
  static constexpr std::size_t longest_word = 32;  // bytes; longer ones rarely repeat

  // Appends the word's ids if it is known.
  bool append(std::string_view word, std::vector<std::int32_t>& ids) const {
    const Stripe& stripe = stripes_[stripe_of(word)];
    const std::lock_guard lock(stripe.mutex);
    const auto found = stripe.ids.find(word);
    if (found == stripe.ids.end()) return false;
    ids.insert(ids.end(), found->second.begin(), found->second.end());
    return true;
  }

  void insert(std::string_view word, const std::vector<std::int32_t>& ids) {
    Stripe& stripe = stripes_[stripe_of(word)];
    const std::lock_guard lock(stripe.mutex);
    if (stripe.ids.size() == words_per_stripe) stripe.ids.clear();
    stripe.ids.emplace(word, ids);
  }

 private:
  static constexpr std::size_t stripes = 64, words_per_stripe = 4096;

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view word) const { return std::hash<std::string_view>{}(word); }
  };
  struct Stripe {
    mutable std::mutex mutex;
    std::unordered_map<std::string, std::vector<std::int32_t>, Hash, std::equal_to<>> ids;
  };

  static std::size_t stripe_of(std::string_view word) { return (Hash{}(word) >> 40) % stripes; }

  std::array<Stripe, stripes> stripes_;
};

}  // namespace smoe
