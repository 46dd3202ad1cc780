// From raw logits to rows of a run result (mobilepack/contract/run_result.py).
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"
#include "program.h"

namespace mobilepack {

struct Row {
  int64_t position = 0;
  int64_t call_tokens = 0;
  int64_t non_finite = 0;
  std::vector<float> sampled;
  std::vector<int64_t> top_ids;
  std::vector<float> top_logits;
  float logsumexp = 0.0F;
  bool has_next = false;
  float next_logit = 0.0F;
};

// `next_id` is the token that follows, negative after the last. Throws std::runtime_error if the
// plan names an id that the vocabulary lacks.
Row make_row(const Plan& plan, Logits logits, int64_t first, int64_t count, int64_t next_id);

// Id of the largest logit, the lowest of several.
int64_t greedy(Logits logits);

}  // namespace mobilepack
