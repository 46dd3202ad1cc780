#include "static_session.h"

#include <cstring>
#include <stdexcept>
#include <utility>

namespace mobilepack {
namespace {

// Numbers of a type at an address, `count` of them from the `first` on.
template <typename T>
void fill(void* to, int64_t first, int64_t count, T value) {
  if (count > 0) std::fill_n(static_cast<T*>(to) + first, count, value);
}

std::vector<uint8_t> empty(const TensorSpec& spec) {
  std::vector<uint8_t> bytes(spec.bytes());
  with_type(spec.dtype, [&](auto kind) {
    using T = decltype(kind);
    fill(bytes.data(), 0, static_cast<int64_t>(spec.count()), encoded<T>(0.0F, spec.encoding));
  });
  return bytes;
}

}  // namespace

StaticSession::StaticSession(StaticForm form) : form_(std::move(form)) {
  for (const TensorSpec& spec : form_.decode.inputs) {
    if (is_cache(spec.name)) caches_.emplace(spec.name, empty(spec));
  }
  bind(form_.prefill);
  bind(form_.decode);
}

void StaticSession::bind(const MethodSpec& method) {
  const size_t which = &method == &form_.decode ? 1 : 0;
  own_[which].resize(method.inputs.size());
  for (size_t n = 0; n < method.inputs.size(); ++n) {
    const TensorSpec& spec = method.inputs[n];
    Bytes& own = own_[which][n];
    if (!is_cache(spec.name)) own.resize(spec.bytes());
    inputs_[which].push_back(is_cache(spec.name) ? caches_.at(spec.name).data() : own.data());
  }
}

const std::vector<void*>& StaticSession::inputs(const MethodSpec& method) const {
  return inputs_[&method == &form_.decode ? 1 : 0];
}

const MethodSpec& StaticSession::prepare(const int64_t* tokens, size_t count, int64_t position) {
  const auto fed = static_cast<int64_t>(count);
  const int64_t width = fed == 1 ? 1 : form_.prefill_tokens;
  // States must hold every position; else the very last one is never read again.
  const int64_t end = form_.states ? position + fed : position;
  if (fed > width || end > form_.past) {
    throw std::runtime_error(std::to_string(count) + " tokens from position " +
                             std::to_string(position) + " on do not fit");
  }
  const MethodSpec& method = fed == 1 ? form_.decode : form_.prefill;
  call_ = {&method, tokens, fed, position, width - fed};
  const std::vector<void*>& to = inputs(method);
  for (size_t n = 0; n < to.size(); ++n) {
    if (!is_cache(method.inputs[n].name)) write(method.inputs[n], to[n]);
  }
  return method;
}

void StaticSession::write(const TensorSpec& spec, void* to) const {
  if (is_mask(spec.name)) return write_mask(spec, to);
  std::memset(to, 0, spec.bytes());
  if (spec.name == "write") {
    const int64_t columns = spec.shape.back();
    with_type(spec.dtype, [&](auto kind) {
      for (int64_t n = 0; n < call_.count; ++n) {
        const int64_t row = (call_.padding + n) * columns;
        fill(to, row + call_.position + n, 1, static_cast<decltype(kind)>(1));
      }
    });
    return;
  }
  auto* numbers = static_cast<int32_t*>(to) + (spec.shape.back() - call_.count);
  for (int64_t n = 0; n < call_.count; ++n) {
    const int64_t value = spec.name == "tokens" ? call_.tokens[n] : call_.position + n;
    numbers[n] = static_cast<int32_t>(value);
  }
}

// 0 where a query may look, else the mask value. Padded queries see what the first real one sees,
// so that no row is without a key.
void StaticSession::write_mask(const TensorSpec& spec, void* to) const {
  const int64_t rows = spec.shape[2];
  const int64_t columns = spec.shape[3];
  const int64_t window = window_of(spec.name);
  const int64_t padding = call_.padding;
  with_type(spec.dtype, [&](auto kind) {
    using T = decltype(kind);
    const T seen = encoded<T>(0.0F, spec.encoding);
    fill(to, 0, rows * columns, encoded<T>(form_.mask_value, spec.encoding));
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t own = std::max<int64_t>(row - padding, 0);  // among the call's tokens
      const int64_t at = call_.position + own;
      const int64_t first = window > 0 ? std::max<int64_t>(at - window + 1, 0) : 0;
      const int64_t last = form_.states ? at + 1 : call_.position;
      fill(to, row * columns + first, std::min(last, form_.past) - first, seen);
      if (form_.states) continue;
      const int64_t begin = window > 0 ? std::max<int64_t>(own - window + 1, 0) : 0;
      fill(to, row * columns + form_.past + padding + begin, own + 1 - begin, seen);
    }
  });
}

Logits StaticSession::finish(const std::vector<const void*>& outputs) {
  const MethodSpec& method = *call_.method;
  for (const TensorSpec& spec : method.inputs) {
    if (is_cache(spec.name)) store(spec, outputs[method.output(spec.name)]);
  }
  const size_t index = method.output("logits");
  const TensorSpec& spec = method.outputs[index];
  if (spec.dtype == Dtype::float32) {
    return {static_cast<const float*>(outputs[index]), spec.count()};
  }
  mobilepack::decode(spec, outputs[index], logits_);
  return {logits_.data(), logits_.size()};
}

void StaticSession::store(const TensorSpec& cache, const void* made) {
  const MethodSpec& method = *call_.method;
  const Layout held = layout_of(form_, cache);
  const Layout fresh = layout_of(form_, method.outputs[method.output(cache.name)]);
  const int64_t end = std::min(call_.position + call_.count, form_.past);
  const size_t piece = cache.bytes() / cache.count() * static_cast<size_t>(held.inner);
  const auto kept = static_cast<size_t>(end - call_.position) * piece;
  const auto* from = static_cast<const uint8_t*>(made);
  uint8_t* to = caches_.at(cache.name).data();
  for (int64_t n = 0; n < held.outer; ++n) {
    const int64_t first = n * fresh.positions + fresh.positions - call_.count;
    std::memcpy(to + static_cast<size_t>(n * held.positions + call_.position) * piece,
                from + static_cast<size_t>(first) * piece, kept);
  }
}

}  // namespace mobilepack
