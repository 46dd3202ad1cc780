package mobilepack.harness

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import java.nio.charset.CharacterCodingException
import java.security.MessageDigest

private const val SCHEMA = "mobilepack/run-plan/1"
private val CHECKSUM = Regex("([0-9a-f]{64})?")

/**
 * Reads a run_plan.json.
 *
 * @throws PlanRefused if the bytes are no plan, or one that cannot be carried out.
 */
fun readPlan(bytes: ByteArray): RunPlan {
    val problems = mutableListOf<String>()
    val fields = Fields("", parsed(bytes), problems)
    val plan = plan(fields, sha256(bytes), problems)
    if (problems.isEmpty()) problems += misfits(plan)
    if (problems.isNotEmpty()) throw PlanRefused(problems)
    return plan
}

private fun parsed(bytes: ByteArray): JsonObject {
    val element = try {
        Json.parseToJsonElement(bytes.decodeToString(throwOnInvalidSequence = true))
    } catch (error: SerializationException) {
        throw PlanRefused(listOf("the plan is no JSON: ${error.message}"))
    } catch (_: StackOverflowError) { // the parser calls itself for every bracket
        throw PlanRefused(listOf("the plan is no JSON: nested too deep"))
    } catch (error: CharacterCodingException) {
        throw PlanRefused(listOf("the plan is no UTF-8: $error"))
    }
    return element as? JsonObject ?: throw PlanRefused(listOf("the plan is no JSON object"))
}

private fun plan(fields: Fields, sha256: String, problems: MutableList<String>): RunPlan {
    if (fields.text("schema", SCHEMA) != SCHEMA) fields.wrong("schema", "is not $SCHEMA")
    // A permission to keep packed weights on the device, which this harness never uses.
    if (!CHECKSUM.matches(fields.text("weight_cache", ""))) {
        fields.wrong("weight_cache", "is neither empty nor a sha256")
    }
    val plan = RunPlan(
        sha256 = sha256,
        program = fields.text("program", "model.pte"),
        method = fields.text("method", "forward"),
        maxSeqLen = fields.whole("max_seq_len", 1),
        prefillChunk = fields.whole("prefill_chunk", 1),
        sampleIds = fields.wholes("sample_ids", 0, required = false),
        topK = fields.whole("top_k", 1, 64),
        threads = fields.whole("threads", 0, 0),
        items = fields.objects("items").mapIndexedNotNull { index, source ->
            item(Fields("items.$index.", source, problems))
        },
    )
    fields.refuseUnknown()
    return plan
}

private fun item(fields: Fields): Item? {
    val kind = fields.text("kind")
    val name = fields.text("name")
    if (name.isEmpty()) fields.wrong("name", "is empty")
    val ids = fields.wholes("token_ids", 0, required = true)
    val item = when (kind) {
        "teacher" -> Teacher(name, ids, fields.wholes("calls", 1, required = true).toIntArray())
        "generate" -> Generate(
            name,
            ids,
            maxNewTokens = fields.whole("max_new_tokens", 1),
            stopIds = fields.wholes("stop_ids", 0, required = false).toSet(),
        )
        "time" -> time(name, ids, fields)
        else -> {
            fields.wrong("kind", "unknown kind '$kind'")
            return null
        }
    }
    fields.refuseUnknown()
    return item
}

private fun time(name: String, ids: LongArray, fields: Fields) = Time(
    name,
    ids,
    nPrompt = fields.whole("n_prompt", 0),
    nGen = fields.whole("n_gen", 0),
    nDepth = fields.whole("n_depth", 0, 0),
    warmups = fields.whole("warmups", 0, 1),
    repetitions = fields.whole("repetitions", 1, 5),
    cooldownSeconds = fields.seconds("cooldown_s"),
)

private fun LongArray.toIntArray() = IntArray(size) { this[it].toInt() }

private fun misfits(plan: RunPlan): List<String> {
    val twice = plan.items.groupBy { it.name }.filterValues { it.size > 1 }.keys
    return plan.items.flatMap { misfits(plan, it) } + twice.map { "two items are named '$it'" }
}

private fun misfits(plan: RunPlan, item: Item): List<String> = buildList {
    if (item.positions > plan.maxSeqLen) {
        add("${item.name} needs ${item.positions} positions of ${plan.maxSeqLen}")
    }
    if (item is Teacher && item.positions > item.tokenIds.size) {
        add("${item.name} feeds ${item.positions} of ${item.tokenIds.size} ids")
    }
    if (item is Teacher && item.calls.any { it > plan.prefillChunk }) {
        add("${item.name} has a call longer than ${plan.prefillChunk}")
    }
    if (item is Time && item.nPrompt == 0 && item.nGen == 0) {
        add("${item.name} times nothing: n_prompt and n_gen are both 0")
    }
}

private fun sha256(bytes: ByteArray): String =
    MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
