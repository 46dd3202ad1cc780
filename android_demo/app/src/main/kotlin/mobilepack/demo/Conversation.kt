package mobilepack.demo

import android.os.SystemClock
import org.json.JSONObject
import org.pytorch.executorch.extension.llm.LlmCallback
import org.pytorch.executorch.extension.llm.LlmGenerationConfig
import org.pytorch.executorch.extension.llm.LlmModule
import java.io.Closeable

/** How an answer came: [tokens] as the runtime counts them, times of a monotonic clock. */
class Speed(val tokens: Int, val tokensPerSecond: Double, val firstAfterSeconds: Double)

/** A chat with the package's model, which remembers what was said until [forget]. */
class Conversation(private val folder: PackageFolder) : Closeable {
    private val module =
        LlmModule(folder.program.path, folder.tokenizer.path, 0f) // the likeliest token, always

    /** Loads the program; everything else would do it on first use. */
    fun load() = module.load()

    /**
     * Answers a message; returns when the answer is complete or was stopped.
     *
     * @param onText Hears each new piece, on the caller's thread.
     */
    fun answer(message: String, onText: (String) -> Unit): Speed {
        val listener = Listener(onText)
        // The module drops `maxNewTokens` on the way to its runner (1.5): only the cache ends it.
        val config = LlmGenerationConfig.create().echo(false).temperature(0f).build()
        module.generate(folder.prompt(message), config, listener)
        return listener.speed()
    }

    /** Ends the answer that is being given; from any thread. */
    fun stop() = module.stop()

    fun forget() = module.resetContext()

    override fun close() = module.close()
}

/**
 * Times the pieces itself: the runtime's own times are whole milliseconds of a clock that can jump.
 *
 * A piece may be several tokens (a character's bytes are withheld until they are whole), so the
 * number of tokens is the runtime's.
 */
private class Listener(private val onText: (String) -> Unit) : LlmCallback {
    private val startNs = SystemClock.elapsedRealtimeNanos()
    private var firstNs = startNs
    private var lastNs = startNs
    private var pieces = 0
    private var tokens = 0

    override fun onResult(result: String) {
        lastNs = SystemClock.elapsedRealtimeNanos()
        if (pieces++ == 0) firstNs = lastNs
        onText(result)
    }

    override fun onStats(stats: String) {
        tokens = JSONObject(stats).optInt("generated_tokens")
    }

    fun speed(): Speed {
        val seconds = (lastNs - firstNs) / 1e9
        val perSecond = if (tokens > 1 && seconds > 0) (tokens - 1) / seconds else 0.0
        return Speed(tokens, perSecond, (firstNs - startNs) / 1e9)
    }
}
