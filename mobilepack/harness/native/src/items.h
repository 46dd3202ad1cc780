// The items of a run plan, carried out in order.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "machine.h"
#include "plan.h"
#include "program.h"
#include "record.h"

namespace mobilepack {

struct Generated {
  std::vector<int64_t> token_ids;
  bool stopped = false;
  int64_t ttft_ns = 0;
  std::vector<int64_t> decode_ns;
};

struct Timing {
  std::vector<int64_t> prefill_ns;
  std::vector<std::vector<int64_t>> decode_ns;
};

struct Outcome {
  std::vector<std::pair<std::string, Row>> rows;
  std::vector<std::pair<std::string, Generated>> generated;
  std::vector<std::pair<std::string, Timing>> timings;
  Frequencies frequencies;    // of timed items
  Temperatures temperatures;  // likewise
};

// Nanoseconds of a monotonic clock.
int64_t now_ns();

// `tell` hears each item's name and number as it begins, and an empty name after the last;
// `finished` gets what one item brought, as soon as it has.
Outcome run_items(const Plan& plan, Program& program,
                  const std::function<void(const std::string&, size_t)>& tell,
                  const std::function<void(const std::string&, const Outcome&)>& finished);

}  // namespace mobilepack
