// The operators of ExecuTorch's LLM extension that our programs call outside the delegate.
//
// The library that holds them upstream needs libtorch, so they are written here for the plain
// runtime. Their schemas are those of executorch/extension/llm/custom_ops (1.5.1); tests hold them
// against that library. Keys, values and caches are [batch, positions, heads, channels].
#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace mobilepack {
namespace {

using executorch::aten::optional;
using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::runtime::Error;
using executorch::runtime::KernelRuntimeContext;

bool rows_fit(const Tensor& value, const Tensor& cache) {
  return value.dim() == 4 && cache.dim() == 4 && value.size(0) == cache.size(0) &&
         value.size(2) == cache.size(2) && value.size(3) == cache.size(3) &&
         value.scalar_type() == cache.scalar_type();
}

// Copies row `from` of a batch of `value` to row `to` of the cache.
void copy_rows(const Tensor& value, Tensor& cache, int64_t batch, int64_t from, int64_t to,
               int64_t count) {
  const size_t row = static_cast<size_t>(value.size(2) * value.size(3)) * value.element_size();
  auto* target = static_cast<char*>(cache.mutable_data_ptr());
  const auto* source = static_cast<const char*>(value.const_data_ptr());
  std::memcpy(target + static_cast<size_t>(batch * cache.size(1) + to) * row,
              source + static_cast<size_t>(batch * value.size(1) + from) * row,
              static_cast<size_t>(count) * row);
}

Tensor& update_cache(KernelRuntimeContext& context, const Tensor& value, Tensor& cache,
                     int64_t start, Tensor& out) {
  ET_KERNEL_CHECK(context, rows_fit(value, cache), InvalidArgument, out);
  ET_KERNEL_CHECK(context, start >= 0 && start + value.size(1) <= cache.size(1), InvalidArgument,
                  out);
  for (int64_t batch = 0; batch < value.size(0); ++batch) {
    copy_rows(value, cache, batch, 0, start, value.size(1));
  }
  return out;
}

Tensor& update_cache_with_indices(KernelRuntimeContext& context, const Tensor& value,
                                  Tensor& cache, int64_t start, const Tensor& indices,
                                  Tensor& out) {
  (void)start;
  ET_KERNEL_CHECK(context, rows_fit(value, cache), InvalidArgument, out);
  ET_KERNEL_CHECK(context,
                  indices.dim() == 2 && indices.size(0) == value.size(0) &&
                      indices.size(1) == value.size(1) &&
                      indices.scalar_type() == ScalarType::Long,
                  InvalidArgument, out);
  const int64_t* wanted = indices.const_data_ptr<int64_t>();
  const int64_t count = value.size(0) * value.size(1);
  const bool inside = std::all_of(wanted, wanted + count, [&](int64_t row) {
    return row >= 0 && row < cache.size(1);
  });
  ET_KERNEL_CHECK(context, inside, InvalidArgument, out);
  for (int64_t n = 0; n < count; ++n) {
    copy_rows(value, cache, n / value.size(1), n % value.size(1), wanted[n], 1);
  }
  return out;
}

// One head's attention for one query, with the softmax's running maximum and sum.
struct Attention {
  const Tensor& q;
  const Tensor& k;
  const Tensor& v;
  const float* mask;  // [queries, mask_stride], or null
  int64_t mask_stride;
  int64_t start;
  bool causal;
  float scale;

  int64_t keys(int64_t query) const {
    if (mask != nullptr) return mask_stride;
    return causal ? start + query + 1 : start + q.size(1);
  }

  void run(int64_t index, float* out, std::vector<float>& scores) const {
    const int64_t heads = q.size(2);
    const int64_t channels = q.size(3);
    const int64_t head = index % heads;
    const int64_t query = index / heads % q.size(1);
    const int64_t batch = index / heads / q.size(1);
    const int64_t group = heads / k.size(2);
    const int64_t stride = k.size(2) * channels;
    const int64_t first = (batch * k.size(1) * k.size(2) + head / group) * channels;
    const float* row = q.const_data_ptr<float>() + index * channels;
    const float* key = k.const_data_ptr<float>() + first;
    const int64_t count = keys(query);
    scores.resize(static_cast<size_t>(count));
    float most = -INFINITY;
    for (int64_t n = 0; n < count; ++n, key += stride) {
      float dot = 0.0F;
      for (int64_t c = 0; c < channels; ++c) dot += row[c] * key[c];
      dot *= scale;
      if (mask != nullptr) dot += mask[query * mask_stride + n];
      scores[static_cast<size_t>(n)] = dot;
      most = std::max(most, dot);
    }
    blend(v.const_data_ptr<float>() + first, stride, most, scores, out + index * channels);
  }

  void blend(const float* value, int64_t stride, float most, const std::vector<float>& scores,
             float* out) const {
    const int64_t channels = q.size(3);
    std::fill(out, out + channels, 0.0F);
    if (most == -INFINITY) return;  // every key is masked: nothing to attend to
    float sum = 0.0F;
    for (float score : scores) {
      const float weight = std::exp(score - most);
      sum += weight;
      for (int64_t c = 0; c < channels; ++c) out[c] += weight * value[c];
      value += stride;
    }
    for (int64_t c = 0; c < channels; ++c) out[c] /= sum;
  }
};

bool attention_fits(const Tensor& q, const Tensor& k, const Tensor& v, int64_t start,
                    const optional<Tensor>& mask, bool causal) {
  const auto is_float = [](const Tensor& one) { return one.scalar_type() == ScalarType::Float; };
  if (q.dim() != 4 || k.dim() != 4 || v.dim() != 4 || !is_float(q) || !is_float(k) ||
      !is_float(v)) {
    return false;
  }
  const bool alike = q.size(0) == k.size(0) && k.size(0) == v.size(0) && k.size(1) == v.size(1) &&
                     k.size(2) == v.size(2) && q.size(3) == k.size(3) && k.size(3) == v.size(3);
  if (!alike || k.size(2) == 0 || q.size(2) % k.size(2) != 0 || start < 0) return false;
  if (!mask.has_value()) return start + q.size(1) <= k.size(1);
  return !causal && is_float(*mask) && mask->dim() == 2 && mask->size(0) == q.size(1) &&
         mask->size(1) <= k.size(1);
}

Tensor& custom_sdpa(KernelRuntimeContext& context, const Tensor& q, const Tensor& k,
                    const Tensor& v, int64_t start, const optional<Tensor>& mask, double dropout,
                    bool causal, const optional<double> scale, Tensor& out) {
  ET_KERNEL_CHECK(context, dropout == 0.0, NotSupported, out);
  ET_KERNEL_CHECK(context, attention_fits(q, k, v, start, mask, causal), InvalidArgument, out);
  ET_KERNEL_CHECK(context, executorch::runtime::resize_tensor(out, q.sizes()) == Error::Ok,
                  InvalidArgument, out);
  const double usual = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const Attention attention{q,
                            k,
                            v,
                            mask.has_value() ? mask->const_data_ptr<float>() : nullptr,
                            mask.has_value() ? mask->size(1) : 0,
                            start,
                            causal,
                            static_cast<float>(scale.has_value() ? *scale : usual)};
  float* target = out.mutable_data_ptr<float>();
  const auto some = [&](int64_t begin, int64_t end) {
    std::vector<float> scores;
    for (int64_t index = begin; index < end; ++index) attention.run(index, target, scores);
  };
  const int64_t count = q.size(0) * q.size(1) * q.size(2);
  executorch::extension::parallel_for(0, count, 1, some);
  return out;
}

}  // namespace
}  // namespace mobilepack

EXECUTORCH_LIBRARY(llama, "update_cache.out", mobilepack::update_cache);
EXECUTORCH_LIBRARY(llama, "update_cache_with_indices.out", mobilepack::update_cache_with_indices);
EXECUTORCH_LIBRARY(llama, "custom_sdpa.out", mobilepack::custom_sdpa);
