package mobilepack.demo

import android.os.SystemClock
import mobilepack.harness.readStaticForm
import java.io.Closeable

/** How an answer came: [tokens] as the runtime counts them, times of a monotonic clock. */
class Speed(val tokens: Int, val tokensPerSecond: Double, val firstAfterSeconds: Double)

/** A chat with the package's model, which remembers what was said until [forget]. */
interface Conversation : Closeable {
    /** Loads the program; everything else would do it on first use. */
    fun load()

    /**
     * Answers a message; returns when the answer is complete or was stopped.
     *
     * @param onText Hears each new piece, on the caller's thread.
     */
    fun answer(message: String, onText: (String) -> Unit): Speed

    /** Ends the answer that is being given; from any thread. */
    fun stop()

    fun forget()
}

/** ExecuTorch's own runner for a program of the dynamic form; it cannot drive the static one. */
fun openConversation(folder: PackageFolder): Conversation {
    val manifest = folder.manifest(folder.program)?.readText()
    val form = manifest?.let(::readStaticForm) ?: return LlmConversation(folder)
    return StaticConversation(folder, manifest, form)
}

/** Times the pieces of an answer. */
internal class Stopwatch(private val onText: (String) -> Unit) {
    private val startNs = SystemClock.elapsedRealtimeNanos()
    private var firstNs = 0L
    private var lastNs = 0L

    fun piece(text: String) {
        lastNs = SystemClock.elapsedRealtimeNanos()
        if (firstNs == 0L) firstNs = lastNs
        onText(text)
    }

    fun speed(tokens: Int): Speed {
        val seconds = (lastNs - firstNs) / 1e9
        val perSecond = if (tokens > 1 && seconds > 0) (tokens - 1) / seconds else 0.0
        return Speed(tokens, perSecond, maxOf(firstNs - startNs, 0) / 1e9)
    }
}
