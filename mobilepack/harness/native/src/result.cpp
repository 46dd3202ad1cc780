#include "result.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "machine.h"

#ifndef MOBILEPACK_EXECUTORCH_VERSION
#define MOBILEPACK_EXECUTORCH_VERSION "unknown"
#endif
#ifndef MOBILEPACK_RUNNER_DIGEST
#define MOBILEPACK_RUNNER_DIGEST "unknown"
#endif

namespace mobilepack {
namespace {

using Json = nlohmann::json;

#if defined(__aarch64__)
constexpr const char* kMachine = "aarch64";
#elif defined(__x86_64__)
constexpr const char* kMachine = "x86_64";
#else
constexpr const char* kMachine = "unknown";
#endif

#if defined(__ANDROID__)
constexpr const char* kSystem = "Android";
#else
constexpr const char* kSystem = "Linux";
#endif

// 9 significant digits name every float32; a double that holds them prints as them.
double short_float(float value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
  return std::strtod(text, nullptr);
}

Json short_floats(const std::vector<float>& values) {
  Json list = Json::array();
  for (float value : values) list.push_back(short_float(value));
  return list;
}

Json row_json(const std::string& item, const Row& row) {
  return {{"item", item},
          {"position", row.position},
          {"call_tokens", row.call_tokens},
          {"non_finite", row.non_finite},
          {"sampled", short_floats(row.sampled)},
          {"top_ids", row.top_ids},
          {"top_logits", short_floats(row.top_logits)},
          {"logsumexp", short_float(row.logsumexp)},
          {"next_logit", row.has_next ? Json(short_float(row.next_logit)) : Json(nullptr)}};
}

Json generated_json(const std::string& item, const Generated& one) {
  return {{"item", item},
          {"token_ids", one.token_ids},
          {"stopped", one.stopped},
          {"ttft_ns", one.ttft_ns},
          {"decode_ns", one.decode_ns}};
}

Json outcome_json(const Outcome& outcome) {
  Json rows = Json::array();
  for (const auto& [item, row] : outcome.rows) rows.push_back(row_json(item, row));
  Json generated = Json::array();
  for (const auto& [item, one] : outcome.generated) generated.push_back(generated_json(item, one));
  Json timings = Json::array();
  for (const auto& [item, one] : outcome.timings) {
    timings.push_back(
        {{"item", item}, {"prefill_ns", one.prefill_ns}, {"decode_ns", one.decode_ns}});
  }
  return {{"rows", rows}, {"generated", generated}, {"timings", timings}};
}

// Whoever started the runner knows whether this is a phone, and says so in the environment.
Json environment_json(const Facts& facts) {
  return {{"kind", "device"},
          {"representative", false},
          {"name", std::string(kSystem) + " " + kMachine},
          {"cpu", cpu_name()},
          {"threads", facts.threads},
          {"runtime",
           {{"executorch", MOBILEPACK_EXECUTORCH_VERSION}, {"runner", MOBILEPACK_RUNNER_DIGEST}}},
          {"conditions", facts.conditions}};
}

}  // namespace

std::string finished_json(const std::string& item, const Outcome& outcome, int64_t peak_bytes) {
  Json event = outcome_json(outcome);
  event["event"] = "finished";
  event["item"] = item;
  event["peak_bytes"] = peak_bytes;
  return event.dump() + "\n";
}

std::string result_json(const Plan& plan, const Outcome& outcome, const Facts& facts) {
  const Json memory = {{"before_load_bytes", facts.before_load_bytes},
                       {"after_load_bytes", facts.after_load_bytes},
                       {"peak_bytes", facts.peak_bytes}};
  Json result = outcome_json(outcome);
  result["schema"] = "mobilepack/run-result/1";
  result["plan_sha256"] = plan.sha256;
  result["load_ns"] = facts.load_ns;
  result["memory"] = memory;
  result["environment"] = environment_json(facts);
  return result.dump() + "\n";
}

}  // namespace mobilepack
