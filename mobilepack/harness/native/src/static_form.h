// How to call a program of the static form (StaticForm of mobilepack/contract/manifest.py).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tensors.h"

namespace mobilepack {

struct MethodSpec {
  std::string name;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;

  // Throws std::runtime_error if it has no such output.
  size_t output(const std::string& name) const;
};

struct StaticForm {
  int64_t past = 0;            // positions that the cache holds
  int64_t prefill_tokens = 0;  // of one call of `prefill`; `decode` takes one
  float mask_value = 0.0F;
  std::vector<int64_t> windows;
  bool channels_first = true;  // keys are [1, heads, channels, past], else as values
  bool states = false;         // the program keeps the cache
  MethodSpec prefill;
  MethodSpec decode;
};

// Keys or values as `outer` blocks of so many positions of `inner` numbers.
struct Layout {
  int64_t outer = 1;
  int64_t positions = 1;
  int64_t inner = 1;
};

bool is_cache(const std::string& name);  // `k_<layer>` or `v_<layer>`

bool is_mask(const std::string& name);

// The sliding window that a mask is for, 0 for full attention, -1 if the name says none.
int64_t window_of(const std::string& name);

Layout layout_of(const StaticForm& form, const TensorSpec& cache);

// Reads the form from a package's manifest.json; none if its program is of the dynamic one. Throws
// std::runtime_error that says which tensor of which method cannot be, before anything is loaded.
std::optional<StaticForm> parse_static_form(const std::string& manifest);

}  // namespace mobilepack
