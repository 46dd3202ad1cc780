package mobilepack.harness

import kotlinx.serialization.json.Json
import java.io.File
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer
import java.nio.ShortBuffer
import kotlin.system.exitProcess

private const val PAST = 256
private const val PREFILL = 40
private const val MASK = -4e4f

/**
 * The toy's model in the static form: the cache's one channel is the state at each position.
 *
 * A method learns where the sequence stands from the masks alone, as a real one does.
 */
private class ToyMethods(private val toy: ToyEngine = ToyEngine()) : Methods {
    override fun run(method: MethodSpec, inputs: List<Numbers>): Outputs {
        val (tokens, mask, cache) = inputs.map { it.decoded() }
        val columns = PAST + tokens.size
        val seen = mask.copyOfRange(mask.size - columns, mask.size).map { it == 0f }
        val first = seen.subList(PAST, columns).indexOf(true)
        val position = seen.subList(0, PAST).count { it }
        if (position > 0) toy.restore(position - 1, cache[position - 1].toLong())
        val fed = tokens.drop(first).map { it.toLong() }.toLongArray()
        val logits = toy.step(fed, position)
        val states = FloatArray(tokens.size) { n -> if (n < first) -1f else toy.state(position + n - first) }
        return Outputs { index, to -> (to as FloatBuffer).put(if (index == 0) logits else states) }
    }
}

private fun spec(name: String, dtype: Dtype, vararg shape: Int) = TensorSpec(name, dtype, shape, null)

private fun methodOf(name: String, width: Int, vocabulary: Int) = MethodSpec(
    name,
    listOf(
        spec("tokens", Dtype.INT32, 1, width),
        spec("mask", Dtype.FLOAT32, 1, 1, width, PAST + width),
        spec("v_0", Dtype.FLOAT32, 1, 1, PAST, 1),
    ),
    listOf(
        spec("logits", Dtype.FLOAT32, 1, 1, vocabulary),
        spec("v_0", Dtype.FLOAT32, 1, 1, width, 1),
    ),
)

/** The toy behind the session that drives a real program of the static form. */
fun staticToy(vocabulary: Int = 61): Engine {
    val form = StaticForm(PAST, PREFILL, MASK, setOf(0), channelsFirst = true, states = false)
    form.prefill = methodOf("prefill", PREFILL, vocabulary)
    form.decode = methodOf("decode", 1, vocabulary)
    form.check()
    return StaticSession(form, ToyMethods())
}

/**
 * `MANIFEST`: each line of stdin is a position and token ids. Prints the method, the bytes of every
 * input and of the logits, or why not, as `tests/harness/native/static_session_main.cpp` does:
 * number i of output n of call c (all from 0) is (7 i + 13 n + 5 c) mod 120.
 */
object StaticCalls {
    private var call = 0

    @JvmStatic
    fun main(arguments: Array<String>) = try {
        val form = readStaticForm(File(arguments[0]).readText()) ?: throw ManifestRefused("no static form")
        val session = StaticSession(form, ::answered)
        for (line in generateSequence(::readLine)) {
            val numbers = line.split(" ").map { it.toLong() }
            val logits = session.step(numbers.drop(1).toLongArray(), numbers[0].toInt())
            val said = ByteBuffer.allocate(4 * logits.size).order(ByteOrder.nativeOrder())
            logits.forEach(said::putFloat)
            print(said)
            call++
        }
    } catch (error: ManifestRefused) {
        println(error.message)
        exitProcess(1)
    } catch (error: PlanRefused) {
        println(error.message)
        exitProcess(1)
    }

    private fun answered(method: MethodSpec, inputs: List<Numbers>): Outputs {
        println(method.name)
        for (input in inputs) print(input.bytes)
        return Outputs { index, to ->
            for (n in 0 until method.outputs[index].count) put(to, (7 * n + 13 * index + 5 * call) % 120)
        }
    }

    private fun put(to: Buffer, value: Int) {
        when (to) {
            is FloatBuffer -> to.put(value.toFloat())
            is ShortBuffer -> to.put(floatToHalf(value.toFloat()))
            is IntBuffer -> to.put(value)
            is LongBuffer -> to.put(value.toLong())
            is ByteBuffer -> to.put(value.toByte())
        }
    }

    private fun print(bytes: ByteBuffer) =
        println((0 until bytes.capacity()).joinToString("") { "%02x".format(bytes.get(it)) })
}

/** Prints the half of every float32 of stdin in hex, and the float32 of that half. */
object Halves {
    @JvmStatic
    fun main(arguments: Array<String>) {
        for (line in generateSequence(::readLine)) {
            val half = floatToHalf(Float.fromBits(line.toLong(16).toInt()))
            println("%04x %08x".format(half, halfToFloat(half).toRawBits()))
        }
    }
}

private fun hex(text: String) = text.toByteArray().joinToString("") { "%02x".format(it) }

/** `TOKENIZER`: prints the ids of every line of stdin, a text in JSON, and what they stream to in hex. */
object Texts {
    @JvmStatic
    fun main(arguments: Array<String>) = try {
        val tokenizer = Tokenizer.read(File(arguments[0]).readText())
        for (line in generateSequence(::readLine)) {
            val ids = tokenizer.encode(Json.parseToJsonElement(line).text().orEmpty())
            val stream = TextStream(tokenizer)
            val text = ids.joinToString("") { stream.push(it) } + stream.finish()
            println(ids.joinToString(" ") + "\t" + hex(text))
        }
    } catch (error: TokenizerRefused) {
        println(error.message)
        exitProcess(1)
    }
}

/** `TOKENIZER POSITIONS STOP`: answers every line of stdin, a text in JSON, with the toy; an empty one forgets. */
object Talks {
    @JvmStatic
    fun main(arguments: Array<String>) {
        val (tokenizer, positions, stop) = arguments
        val limits = DialogueLimits(PREFILL, positions.toInt(), setOf(stop.toLong()))
        val dialogue = Dialogue(staticToy(), Tokenizer.read(File(tokenizer).readText()), limits)
        for (line in generateSequence(::readLine)) {
            val text = Json.parseToJsonElement(line).text().orEmpty()
            if (text.isEmpty()) dialogue.forget()
            val said = StringBuilder()
            try {
                val tokens = dialogue.answer(text) { said.append(it) }
                println("$tokens\t" + hex(said.toString()))
            } catch (error: PlanRefused) {
                println("refused\t" + hex(error.message.orEmpty()))
            }
        }
    }
}
