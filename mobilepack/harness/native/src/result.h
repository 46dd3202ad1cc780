// run_result.json (mobilepack/contract/run_result.py is the contract's source).
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "items.h"

namespace mobilepack {

struct Facts {
  int64_t load_ns = 0;
  int64_t threads = 1;
  int64_t before_load_bytes = 0;
  int64_t after_load_bytes = 0;
  int64_t peak_bytes = 0;
  std::map<std::string, std::string> conditions;
};

// The event that says what one item brought (mobilepack/harness/talk.py).
std::string finished_json(const std::string& item, const Outcome& outcome, int64_t peak_bytes);

std::string result_json(const Plan& plan, const Outcome& outcome, const Facts& facts);

}  // namespace mobilepack
