package mobilepack.harness

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The types of tensors that ExecuTorch's Java API has, under their names in a manifest. */
enum class Dtype(val text: String, val bytes: Int, internal val whole: LongRange? = null) {
    FLOAT32("float32", 4),
    FLOAT16("float16", 2),
    INT64("int64", 8, Long.MIN_VALUE..Long.MAX_VALUE),
    INT32("int32", 4, Int.MIN_VALUE.toLong()..Int.MAX_VALUE),
    INT8("int8", 1, -128L..127L),
    UINT8("uint8", 1, 0L..255L),
}

/** Integers stand for `(integer - zeroPoint) * scale`. */
class Encoding(val scale: Double, val zeroPoint: Long)

/** A method's input or output. */
class TensorSpec(val name: String, val dtype: Dtype, val shape: IntArray, val encoding: Encoding?) {
    /** Of its numbers. */
    val count: Int get() = shape.fold(1) { product, size -> product * size }
}

/**
 * A tensor's memory: by rows, direct and in native byte order, so that a runtime reads it in place.
 *
 * @property view Of all its numbers, as a buffer of their own type: a half is a short.
 */
class Numbers(val spec: TensorSpec) {
    internal val bytes: ByteBuffer =
        ByteBuffer.allocateDirect(spec.count * spec.dtype.bytes).order(ByteOrder.nativeOrder())

    val view: Buffer = when (spec.dtype) {
        Dtype.FLOAT32 -> bytes.asFloatBuffer()
        Dtype.FLOAT16 -> bytes.asShortBuffer()
        Dtype.INT64 -> bytes.asLongBuffer()
        Dtype.INT32 -> bytes.asIntBuffer()
        Dtype.INT8, Dtype.UINT8 -> bytes
    }

    /** Writes one number [count] times from place [first] on. */
    internal fun fill(first: Int, count: Int, value: Float) {
        val bits = bits(value)
        val places = first until first + count
        when (spec.dtype.bytes) {
            1 -> for (n in places) bytes.put(n, bits.toByte())
            2 -> for (n in places) bytes.putShort(2 * n, bits.toShort())
            4 -> for (n in places) bytes.putInt(4 * n, bits.toInt())
            else -> for (n in places) bytes.putLong(8 * n, bits)
        }
    }

    /** The numbers that are stored. As `decoded` of mobilepack's models/static_session.py. */
    internal fun decoded() = FloatArray(spec.count) { n ->
        when (spec.dtype) {
            Dtype.FLOAT32 -> bytes.getFloat(4 * n)
            Dtype.FLOAT16 -> halfToFloat(bytes.getShort(2 * n))
            Dtype.INT64 -> decoded(bytes.getLong(8 * n))
            Dtype.INT32 -> decoded(bytes.getInt(4 * n).toLong())
            Dtype.INT8 -> decoded(bytes.get(n).toLong())
            Dtype.UINT8 -> decoded(bytes.get(n).toLong() and 0xff)
        }
    }

    private fun decoded(integer: Long): Float {
        val encoding = spec.encoding ?: return integer.toFloat()
        return ((integer - encoding.zeroPoint) * encoding.scale).toFloat()
    }

    /**
     * A number as the tensor stores it: in float32 steps of its encoding, ties to the even one, cut
     * to its integers; as it is without an encoding. As `encoded` of models/static_session.py.
     */
    private fun bits(value: Float): Long {
        val whole = spec.dtype.whole
        val encoding = spec.encoding
        return when {
            spec.dtype == Dtype.FLOAT16 -> floatToHalf(value).toLong()
            whole == null -> value.toRawBits().toLong()
            encoding == null -> value.toLong()
            else -> {
                val steps = Math.rint((value / encoding.scale.toFloat()).toDouble()).toFloat()
                (steps + encoding.zeroPoint.toFloat()).toLong().coerceIn(whole)
            }
        }
    }
}

private const val HALF_BIAS = 15
private const val HALF_FRACTION = 10
private const val FLOAT_BIAS = 127
private const val FLOAT_FRACTION = 23

/** A half (IEEE 754 binary16) as a float32, which holds every one of them. */
internal fun halfToFloat(half: Short): Float {
    val bits = half.toInt() and 0xffff
    val sign = if (bits and 0x8000 == 0) 1f else -1f
    val exponent = bits shr HALF_FRACTION and 0x1f
    val fraction = bits and 0x3ff
    return sign * when (exponent) {
        0 -> Math.scalb(fraction.toFloat(), 1 - HALF_BIAS - HALF_FRACTION)
        0x1f -> if (fraction == 0) Float.POSITIVE_INFINITY else Float.NaN
        else -> Math.scalb((fraction or 0x400).toFloat(), exponent - HALF_BIAS - HALF_FRACTION)
    }
}

/** The half that is nearest to a float32, of two the even one. */
internal fun floatToHalf(value: Float): Short {
    val bits = value.toRawBits()
    val sign = bits ushr 16 and 0x8000
    if (value.isNaN()) return (sign or 0x7e00).toShort()
    val exponent = (bits ushr FLOAT_FRACTION and 0xff) - FLOAT_BIAS
    // In units of the last place, of which a half below 2^-14 has larger ones than its size asks for.
    val unit = maxOf(exponent, 1 - HALF_BIAS) - HALF_FRACTION
    val units = Math.rint(Math.scalb(Math.abs(value).toDouble(), -unit)).toInt()
    if (exponent > HALF_BIAS) return (sign or 0x7c00).toShort()
    // Adding lets a fraction that was rounded up to a whole carry into the exponent.
    val place = (unit + HALF_FRACTION + HALF_BIAS - 1) shl HALF_FRACTION
    return (sign or place + units).toShort()
}
