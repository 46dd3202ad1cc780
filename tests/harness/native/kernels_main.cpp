// Calls one of the runner's kernels on tensors of a file and prints the output's float32 as hex bits.
//
// kernels_main FILE: lines of text; the first names the kernel, then start, causal (0/1) and scale
// (nan for none), then for each tensor its rank, its sizes and its values; a rank of -1 is no tensor.
#include "kernels.cpp"

#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

using executorch::extension::TensorPtr;
using executorch::extension::make_tensor_ptr;

namespace {

template <typename T>
TensorPtr read_tensor(std::ifstream& file) {
  int rank = 0;
  file >> rank;
  if (rank < 0) return nullptr;
  std::vector<executorch::aten::SizesType> sizes(static_cast<size_t>(rank));
  size_t count = 1;
  for (auto& size : sizes) {
    file >> size;
    count *= static_cast<size_t>(size);
  }
  std::vector<T> values(count);
  for (auto& value : values) {
    std::string text;
    file >> text;
    value = static_cast<T>(std::strtod(text.c_str(), nullptr));
  }
  return make_tensor_ptr(std::move(sizes), std::move(values));
}

void print(const executorch::aten::Tensor& tensor) {
  const float* values = tensor.const_data_ptr<float>();
  for (ssize_t n = 0; n < tensor.numel(); ++n) {
    uint32_t bits = 0;
    std::memcpy(&bits, values + n, sizeof bits);
    std::printf("%08x\n", bits);
  }
}

}  // namespace

int main(int, char** argv) {
  executorch::runtime::runtime_init();
  std::ifstream file(argv[1]);
  std::string kernel, scale_text;
  int64_t start = 0;
  int causal = 0;
  file >> kernel >> start >> causal >> scale_text;
  executorch::runtime::KernelRuntimeContext context;
  const double scale = std::strtod(scale_text.c_str(), nullptr);
  if (kernel == "custom_sdpa") {
    auto q = read_tensor<float>(file), k = read_tensor<float>(file), v = read_tensor<float>(file);
    auto mask = read_tensor<float>(file);
    auto out = make_tensor_ptr({q->sizes().begin(), q->sizes().end()},
                               std::vector<float>(static_cast<size_t>(q->numel())));
    executorch::aten::optional<executorch::aten::Tensor> some;
    if (mask) some = *mask;
    executorch::aten::optional<double> factor;
    if (!std::isnan(scale)) factor = scale;
    mobilepack::custom_sdpa(context, *q, *k, *v, start, some, 0.0, causal != 0, factor, *out);
    if (context.failure_state() == executorch::runtime::Error::Ok) print(*out);
  } else {
    auto value = read_tensor<float>(file), cache = read_tensor<float>(file);
    auto indices = read_tensor<int64_t>(file);
    auto out = make_tensor_ptr({1}, std::vector<float>(1));
    if (indices) {
      mobilepack::update_cache_with_indices(context, *value, *cache, start, *indices, *out);
    } else {
      mobilepack::update_cache(context, *value, *cache, start, *out);
    }
    if (context.failure_state() == executorch::runtime::Error::Ok) print(*cache);
  }
  return static_cast<int>(context.failure_state());
}
