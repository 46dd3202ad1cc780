#include "tensors.h"

#include <functional>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace mobilepack {
namespace {

constexpr std::pair<const char*, Dtype> kNames[] = {
    {"float32", Dtype::float32}, {"float16", Dtype::float16}, {"int32", Dtype::int32},
    {"int16", Dtype::int16},     {"int8", Dtype::int8},       {"uint16", Dtype::uint16},
    {"uint8", Dtype::uint8},
};

}  // namespace

size_t TensorSpec::count() const {
  return static_cast<size_t>(
      std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
}

size_t TensorSpec::bytes() const {
  return count() * with_type(dtype, [](auto number) { return sizeof number; });
}

Dtype dtype_of(const std::string& name) {
  std::string known;
  for (const auto& [text, dtype] : kNames) {
    if (name == text) return dtype;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  throw std::runtime_error("dtype is '" + name + "', known are " + known);
}

void decode(const TensorSpec& spec, const void* data, std::vector<float>& numbers) {
  numbers.resize(spec.count());
  with_type(spec.dtype, [&](auto kind) {
    using T = decltype(kind);
    const T* stored = static_cast<const T*>(data);
    std::transform(stored, stored + numbers.size(), numbers.begin(), [&](T one) {
      if constexpr (std::is_integral_v<T>) {
        if (spec.encoding) {
          const int64_t steps = static_cast<int64_t>(one) - spec.encoding->zero_point;
          return static_cast<float>(static_cast<double>(steps) * spec.encoding->scale);
        }
      }
      return static_cast<float>(one);
    });
  });
}

}  // namespace mobilepack
