// Fields of a JSON object, read strictly: what is no such value is an error that names the field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace mobilepack {

using Json = nlohmann::json;

constexpr int64_t kIdLimit = int64_t{1} << 31;

// An integer of at least `least`; `otherwise` if it is absent, which is an error if that is less.
inline int64_t whole(const Json& object, const char* key, int64_t least, int64_t otherwise) {
  if (!object.contains(key)) {
    if (otherwise < least) throw std::runtime_error(std::string(key) + " is missing");
    return otherwise;
  }
  const Json& value = object.at(key);
  if (!value.is_number_integer() || value.get<int64_t>() < least) {
    throw std::runtime_error(std::string(key) + " must be an integer of at least " +
                             std::to_string(least));
  }
  return value.get<int64_t>();
}

inline std::string text(const Json& object, const char* key, const std::string& otherwise) {
  if (!object.contains(key)) return otherwise;
  if (!object.at(key).is_string()) throw std::runtime_error(std::string(key) + " must be text");
  return object.at(key).get<std::string>();
}

// Integers from `least` to 2^31 - 1; none if they are absent and need not be there.
inline std::vector<int64_t> wholes(const Json& object, const char* key, int64_t least,
                                   bool required) {
  if (!object.contains(key)) {
    if (required) throw std::runtime_error(std::string(key) + " is missing");
    return {};
  }
  std::vector<int64_t> found;
  for (const Json& value : object.at(key)) {
    if (!value.is_number_integer() || value.get<int64_t>() < least ||
        value.get<int64_t>() >= kIdLimit) {
      throw std::runtime_error(std::string(key) + " holds what is no valid number");
    }
    found.push_back(value.get<int64_t>());
  }
  if (required && found.empty()) throw std::runtime_error(std::string(key) + " is empty");
  return found;
}

}  // namespace mobilepack
