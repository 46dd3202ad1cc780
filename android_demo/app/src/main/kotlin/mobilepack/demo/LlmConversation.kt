package mobilepack.demo

import org.json.JSONObject
import org.pytorch.executorch.extension.llm.LlmCallback
import org.pytorch.executorch.extension.llm.LlmGenerationConfig
import org.pytorch.executorch.extension.llm.LlmModule

/** A chat through ExecuTorch's own runner, tokenizer included. */
class LlmConversation(private val folder: PackageFolder) : Conversation {
    private val module =
        LlmModule(folder.program.path, folder.tokenizer.path, 0f) // the likeliest token, always

    override fun load() = module.load()

    override fun answer(message: String, onText: (String) -> Unit): Speed {
        val listener = Listener(Stopwatch(onText))
        val prompt = folder.prompt(message)
        // The module drops `maxNewTokens` on the way to its runner (1.5): only the cache ends it.
        val config = LlmGenerationConfig.create().echo(false).temperature(0f).numBos(prompt.bos).build()
        module.generate(prompt.text, config, listener)
        return listener.speed()
    }

    override fun stop() = module.stop()

    override fun forget() = module.resetContext()

    override fun close() = module.close()
}

/**
 * Takes the pieces' times itself: the runtime's own are whole milliseconds of a clock that can jump.
 *
 * A piece may be several tokens (a character's bytes are withheld until they are whole), so the
 * number of tokens is the runtime's.
 */
private class Listener(private val stopwatch: Stopwatch) : LlmCallback {
    private var tokens = 0

    override fun onResult(result: String) = stopwatch.piece(result)

    override fun onStats(stats: String) {
        tokens = JSONObject(stats).optInt("generated_tokens")
    }

    fun speed() = stopwatch.speed(tokens)
}
