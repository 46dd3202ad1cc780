package mobilepack.harness

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import java.math.BigDecimal
import java.math.MathContext

/** The run_result.json, on one line. */
fun RunResult.toJson(): String = buildJsonObject {
    put("schema", "mobilepack/run-result/1")
    put("plan_sha256", planSha256)
    put("load_ns", loadNs)
    put("rows", list(outcome.rows, ::json))
    put("generated", list(outcome.generated, ::json))
    put("timings", list(outcome.timings, ::json))
    put("memory", json(memory))
    put("environment", json(environment))
}.toString() + "\n"

private fun json(row: Row) = buildJsonObject {
    put("item", row.item)
    put("position", row.position)
    put("call_tokens", row.callTokens)
    put("non_finite", row.nonFinite)
    put("sampled", list(row.sampled, ::short))
    put("top_ids", list(row.topIds, ::JsonPrimitive))
    put("top_logits", list(row.topLogits, ::short))
    put("logsumexp", short(row.logsumexp))
    put("next_logit", row.nextLogit?.let(::short) ?: JsonNull)
}

private fun json(one: Generated) = buildJsonObject {
    put("item", one.item)
    put("token_ids", list(one.tokenIds, ::JsonPrimitive))
    put("stopped", one.stopped)
    put("ttft_ns", one.ttftNs)
    put("decode_ns", list(one.decodeNs, ::JsonPrimitive))
}

private fun json(one: Timing) = buildJsonObject {
    put("item", one.item)
    put("prefill_ns", list(one.prefillNs, ::JsonPrimitive))
    put("decode_ns", list(one.decodeNs) { list(it, ::JsonPrimitive) })
}

private fun json(memory: Memory) = buildJsonObject {
    put("before_load_bytes", memory.beforeLoadBytes)
    put("after_load_bytes", memory.afterLoadBytes)
    put("peak_bytes", memory.peakBytes)
}

private fun json(environment: Environment) = buildJsonObject {
    put("kind", environment.kind)
    put("representative", environment.representative)
    put("name", environment.name)
    put("cpu", environment.cpu)
    put("threads", environment.threads)
    put("runtime", texts(environment.runtime))
    put("conditions", texts(environment.conditions))
}

private fun <T> list(values: List<T>, one: (T) -> JsonElement) = JsonArray(values.map(one))

private fun texts(values: Map<String, String>) = JsonObject(values.mapValues { JsonPrimitive(it.value) })

/** 9 significant digits name every float32 (IEEE 754: 1 + ceil(24 log10 2)); more is noise. */
private fun short(value: Float): JsonPrimitive =
    JsonPrimitive(BigDecimal(value.toDouble()).round(MathContext(9)).toDouble())
