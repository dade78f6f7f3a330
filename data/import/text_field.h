// The string of an object that is its document.
#pragma once

#include <string>
#include <vector>

#include "data/files/json.h"

namespace smoe {

// "text", or a path into nested objects, "meta.body"; a key that is called "meta.body" itself comes before the path.
class TextField {
 public:
  explicit TextField(std::string name);

  // Throws std::runtime_error, which begins with `where`, unless a string is there. A view into the object.
  const std::string& of(const Json& object, const std::string& where) const;

 private:
  std::string name_;
  std::vector<std::string> path_;
};

}  // namespace smoe
