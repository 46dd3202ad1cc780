package mobilepack.harness

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

private const val LIMIT = 1L shl 31

/**
 * Reads the form from a package's manifest.json; null if its program is of the dynamic one.
 *
 * @throws ManifestRefused before anything is loaded, with the first tensor of the first method that
 *   cannot be: of a type that the app has no tensors for, or not of the form.
 */
fun readStaticForm(manifest: String): StaticForm? = within("manifest.json") {
    val source = parsed(manifest) as? JsonObject ?: refuse("it is no object")
    val form = source["static"]
    if (form == null || form is JsonNull) null else form(form, list(source, "methods"))
}

/**
 * Reads the ids that end an answer from a package's manifest.json; none where it names none.
 *
 * @throws ManifestRefused if it is no manifest.
 */
fun readStopIds(manifest: String): Set<Long> = within("manifest.json") {
    val source = parsed(manifest) as? JsonObject ?: refuse("it is no object")
    val ids = (source["tokenizer"] as? JsonObject)?.get("eos_ids") ?: return emptySet()
    (ids as? JsonArray)?.map { whole(it) ?: refuse("tokenizer: eos_ids holds what is no integer") }?.toSet()
        ?: refuse("tokenizer: eos_ids must be a list")
}

private fun parsed(text: String): JsonElement = try {
    Json.parseToJsonElement(text)
} catch (error: SerializationException) {
    refuse("it is no JSON: ${error.message}")
} catch (_: StackOverflowError) { // the parser calls itself for every bracket
    refuse("it is no JSON: nested too deep")
}

private fun form(source: JsonElement, methods: JsonArray): StaticForm {
    val form = within("static") {
        val fields = source as? JsonObject ?: JsonObject(emptyMap())
        val past = integer(fields, "past", 1)
        val prefillTokens = integer(fields, "prefill_tokens", 1)
        demand(past < LIMIT && prefillTokens < LIMIT, "its lengths are no lengths")
        val maskValue = number(fields, "mask_value").toFloat()
        demand(maskValue < 0f, "mask_value must be below 0")
        val windows = integers(fields, "windows", 0).toSet()
        val keys = text(fields, "keys", "channels_first")
        demand(keys == "channels_first" || keys == "positions_first", "keys is '$keys'")
        val states = flag(fields, "states")
        StaticForm(past.toInt(), prefillTokens.toInt(), maskValue, windows, keys == "channels_first", states)
    }
    within("methods") {
        form.prefill = method(methods, "prefill")
        form.decode = method(methods, "decode")
        form.check()
    }
    return form
}

private fun method(methods: JsonArray, name: String): MethodSpec {
    val source = methods.filterIsInstance<JsonObject>().firstOrNull { text(it, "name", "") == name }
        ?: refuse("there is no method $name")
    return within(name) { MethodSpec(name, tensors(source, "inputs"), tensors(source, "outputs")) }
}

private fun tensors(source: JsonObject, key: String): List<TensorSpec> {
    val found = list(source, key)
    return within(key) { found.map { tensor(it as? JsonObject ?: JsonObject(emptyMap())) } }
}

private fun tensor(source: JsonObject): TensorSpec {
    val name = text(source, "name", "")
    demand(name.isNotEmpty(), "a tensor has no name")
    return within(name) {
        val dtype = dtype(text(source, "dtype", ""))
        val shape = integers(source, "shape", 1)
        // Keeps every later product of sizes within 31 bits, which a buffer of Java's has.
        val count = shape.fold(dtype.bytes.toLong()) { product, size -> minOf(product * size, LIMIT) }
        demand(count < LIMIT, "its shape holds too many numbers")
        val encoding = source["encoding"].takeUnless { it == null || it is JsonNull }
        TensorSpec(name, dtype, shape.toIntArray(), encoding?.let { encoding(it, dtype) })
    }
}

private fun dtype(text: String): Dtype {
    val known = Dtype.entries.joinToString { it.text }
    return Dtype.entries.firstOrNull { it.text == text } ?: refuse("dtype is '$text', known are $known")
}

private fun encoding(source: JsonElement, dtype: Dtype): Encoding {
    val fields = source as? JsonObject ?: JsonObject(emptyMap())
    val scale = number(fields, "scale")
    val zeroPoint = integer(fields, "zero_point", -LIMIT)
    val whole = dtype.whole ?: refuse("an encoding is for integers")
    val smallest = java.lang.Float.MIN_NORMAL
    demand(scale.toFloat() >= smallest && scale.toFloat().isFinite(), "scale must be above 0")
    demand(zeroPoint in whole, "zero_point is no number of its dtype")
    return Encoding(scale, zeroPoint)
}

private fun list(source: JsonObject, key: String): JsonArray =
    present(source, key) as? JsonArray ?: refuse("$key must be a list")

private fun text(source: JsonObject, key: String, otherwise: String): String {
    val value = source[key] ?: return otherwise
    return (value as? JsonPrimitive)?.takeIf { it.isString }?.content ?: refuse("$key must be text")
}

private fun flag(source: JsonObject, key: String): Boolean {
    val value = source[key] ?: return false
    return literal(value)?.toBooleanStrictOrNull() ?: refuse("$key must be true or false")
}

private fun number(source: JsonObject, key: String): Double =
    literal(present(source, key))?.takeIf { NUMBER.matches(it) }?.toDouble() ?: refuse("$key must be a number")

private fun integer(source: JsonObject, key: String, least: Long): Long =
    whole(present(source, key))?.takeIf { it >= least } ?: refuse("$key must be an integer of at least $least")

private fun integers(source: JsonObject, key: String, least: Long): List<Int> {
    val values = present(source, key) as? JsonArray ?: refuse("$key must be a list")
    demand(values.isNotEmpty(), "$key is empty")
    return values.map { value ->
        whole(value)?.takeIf { it in least until LIMIT }?.toInt() ?: refuse("$key holds what is no valid number")
    }
}

private fun present(source: JsonObject, key: String): JsonElement = source[key] ?: refuse("$key is missing")

private fun whole(value: JsonElement): Long? =
    literal(value)?.takeIf { WHOLE.matches(it) }?.toLongOrNull()

private fun literal(value: JsonElement): String? = (value as? JsonPrimitive)?.takeUnless { it.isString }?.content
