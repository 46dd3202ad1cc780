// Tensors as a package's manifest describes them, and the numbers that their integers stand for.
#pragma once

#include <executorch/runtime/core/portable_type/half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace mobilepack {

enum class Dtype { float32, float16, int32, int16, int8, uint16, uint8 };

using Half = executorch::runtime::etensor::Half;
using Shape = std::vector<int64_t>;

// Integers stand for `(integer - zero_point) * scale`.
struct Encoding {
  double scale = 1.0;
  int64_t zero_point = 0;
};

struct TensorSpec {
  std::string name;
  Dtype dtype = Dtype::float32;
  Shape shape;
  std::optional<Encoding> encoding;

  size_t count() const;  // of its numbers
  size_t bytes() const;
};

// Throws std::runtime_error with the names that there are.
Dtype dtype_of(const std::string& name);

// Calls `f` with a number of the type.
template <typename F>
decltype(auto) with_type(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::float16: return f(Half{});
    case Dtype::int32: return f(int32_t{});
    case Dtype::int16: return f(int16_t{});
    case Dtype::int8: return f(int8_t{});
    case Dtype::uint16: return f(uint16_t{});
    case Dtype::uint8: return f(uint8_t{});
    default: return f(float{});
  }
}

inline bool is_integer(Dtype dtype) {
  return with_type(dtype, [](auto number) { return std::is_integral_v<decltype(number)>; });
}

// A number as a tensor stores it: in float32 steps of its encoding, ties to the even one, cut to
// its integers; as it is without an encoding. As `encoded` of models/static_session.py.
template <typename T>
T encoded(float value, const std::optional<Encoding>& encoding) {
  if constexpr (std::is_integral_v<T>) {
    if (encoding) {
      const float steps = std::nearbyint(value / static_cast<float>(encoding->scale)) +
                          static_cast<float>(encoding->zero_point);
      return static_cast<T>(std::clamp(static_cast<double>(steps),
                                       static_cast<double>(std::numeric_limits<T>::min()),
                                       static_cast<double>(std::numeric_limits<T>::max())));
    }
  }
  return static_cast<T>(value);
}

// The numbers of a tensor. As `decoded` of models/static_session.py.
void decode(const TensorSpec& spec, const void* data, std::vector<float>& numbers);

}  // namespace mobilepack
