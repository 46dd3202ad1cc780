#include "record.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace mobilepack {
namespace {

float at(Logits logits, int64_t id) {
  if (id < 0 || static_cast<size_t>(id) >= logits.size) {
    throw std::runtime_error("the plan names token id " + std::to_string(id) +
                             ", the program has " + std::to_string(logits.size));
  }
  return logits.data[id];
}

// Ids of the k largest, largest first, ties by lower id.
std::vector<int64_t> largest(Logits logits, size_t k) {
  std::vector<int64_t> ids(logits.size);
  std::iota(ids.begin(), ids.end(), 0);
  const auto before = [&](int64_t a, int64_t b) {
    const float x = logits.data[a];
    const float y = logits.data[b];
    return x > y || (x == y && a < b);
  };
  k = std::min(k, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(k), ids.end(), before);
  ids.resize(k);
  return ids;
}

float logsumexp(Logits logits, float peak) {
  double sum = 0.0;
  for (size_t i = 0; i < logits.size; ++i) {
    sum += std::exp(static_cast<double>(logits.data[i]) - static_cast<double>(peak));
  }
  return static_cast<float>(static_cast<double>(peak) + std::log(sum));
}

}  // namespace

Row make_row(const Plan& plan, Logits logits, int64_t first, int64_t count, int64_t next_id) {
  Row row;
  row.position = first + count - 1;
  row.call_tokens = count;
  row.non_finite = std::count_if(logits.data, logits.data + logits.size,
                                 [](float value) { return !std::isfinite(value); });
  if (row.non_finite > 0) return row;
  for (int64_t id : plan.sample_ids) row.sampled.push_back(at(logits, id));
  row.top_ids = largest(logits, static_cast<size_t>(plan.top_k));
  for (int64_t id : row.top_ids) row.top_logits.push_back(logits.data[id]);
  row.logsumexp = logsumexp(logits, row.top_logits.front());
  row.has_next = next_id >= 0;
  if (row.has_next) row.next_logit = at(logits, next_id);
  return row;
}

int64_t greedy(Logits logits) {
  return std::max_element(logits.data, logits.data + logits.size) - logits.data;
}

}  // namespace mobilepack
