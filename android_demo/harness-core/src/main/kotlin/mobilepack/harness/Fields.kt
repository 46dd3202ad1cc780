package mobilepack.harness

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

internal val WHOLE = Regex("-?(0|[1-9][0-9]*)")
internal val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")

/**
 * The fields of one JSON object, read strictly: wrong, missing and unknown ones become [problems].
 *
 * A reader returns a harmless value beside a problem, so that one pass finds all of them; nobody may
 * use what was read while there are problems.
 */
internal class Fields(
    private val where: String,
    private val source: JsonObject,
    private val problems: MutableList<String>,
) {
    private val asked = mutableSetOf<String>()

    fun text(key: String, otherwise: String? = null): String {
        val value = value(key, otherwise == null) ?: return otherwise.orEmpty()
        if (value is JsonPrimitive && value.isString) return value.content
        return wrong(key, "must be text", "")
    }

    fun whole(key: String, least: Int, otherwise: Int? = null): Int {
        val value = value(key, otherwise == null) ?: return otherwise ?: least
        val number = number(value)
        if (number == null || number < least || number > Int.MAX_VALUE) {
            return wrong(key, "must be an integer from $least to ${Int.MAX_VALUE}", least)
        }
        return number.toInt()
    }

    /** Integers below 2^31, as token ids are; [required] ones may not be empty. */
    fun wholes(key: String, least: Int, required: Boolean): LongArray {
        val value = value(key, required) ?: return longArrayOf()
        if (value !is JsonArray) return wrong(key, "must be a list", longArrayOf())
        val found = value.map { number(it) }
        if (found.any { it == null || it < least || it > Int.MAX_VALUE }) {
            return wrong(key, "holds what is no integer from $least to ${Int.MAX_VALUE}", longArrayOf())
        }
        if (required && found.isEmpty()) return wrong(key, "is empty", longArrayOf())
        return found.filterNotNull().toLongArray()
    }

    fun seconds(key: String): Double {
        val value = value(key, required = false) ?: return 0.0
        val text = (value as? JsonPrimitive)?.takeUnless { it.isString }?.content.orEmpty()
        val number = if (NUMBER.matches(text)) text.toDouble() else Double.NaN
        if (number >= 0.0 && number.isFinite()) return number
        return wrong(key, "must be a number of at least 0", 0.0)
    }

    fun objects(key: String): List<JsonObject> {
        val value = value(key, required = true) ?: return emptyList()
        if (value !is JsonArray || value.any { it !is JsonObject }) {
            return wrong(key, "must be a list of objects", emptyList())
        }
        if (value.isEmpty()) return wrong(key, "is empty", emptyList())
        return value.map { it as JsonObject }
    }

    /** A field that a file has and nobody asked for could change what the plan means. */
    fun refuseUnknown() {
        for (key in source.keys - asked) problems += "$where$key: unknown field"
    }

    fun wrong(key: String, why: String) {
        problems += "$where$key: $why"
    }

    private fun <T> wrong(key: String, why: String, instead: T): T {
        wrong(key, why)
        return instead
    }

    private fun value(key: String, required: Boolean): JsonElement? {
        asked += key
        val value = source[key]
        if (value == null && required) wrong(key, "is missing")
        return value
    }

    private fun number(value: JsonElement): Long? {
        val text = (value as? JsonPrimitive)?.takeUnless { it.isString }?.content ?: return null
        return if (WHOLE.matches(text)) text.toLongOrNull() else null
    }
}
