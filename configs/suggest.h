// "Did you mean": the key or value that the writer of an unknown one probably had in mind.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smoe {

// Insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal string alignment,
// Damerau 1964 with each letter edited once).
std::size_t edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to word, if it is near enough to be a slip: one edit in three letters, and at least one.
std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& candidates);

// The dotted key here that other trainers call by this name: lr -> optimizer.learning_rate.
std::optional<std::string> foreign_name(std::string_view name);

// Every key that a foreign name leads to.
std::vector<std::string> all_foreign_targets();

// For an unknown key of a section ("" is the top level): the name that others use, a near one of the same section, or
// keys of other sections that have this very name. valid holds every dotted key, siblings the dotted keys of the section.
// The answer is ready to be appended to a message, and empty if nothing is near.
std::string did_you_mean_key(std::string_view name, const std::vector<std::string>& siblings,
                             const std::vector<std::string>& valid);

// For an unknown key that was written dotted, as on the command line: what others call by its last part, a near
// one among all that are valid, or keys with this very last part. As above.
std::string did_you_mean_dotted(std::string_view dotted, const std::vector<std::string>& valid);

// "; did you mean 'x'?", or nothing.
std::string did_you_mean(const std::optional<std::string>& suggestion);

// The part of a dotted key after its last dot.
std::string_view last_part(std::string_view dotted);

}  // namespace smoe
