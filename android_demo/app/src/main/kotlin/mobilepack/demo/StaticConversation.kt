package mobilepack.demo

import mobilepack.harness.Dialogue
import mobilepack.harness.DialogueLimits
import mobilepack.harness.StaticForm
import mobilepack.harness.Tokenizer
import mobilepack.harness.readStopIds
import org.pytorch.executorch.Module

/** A chat with a program of the static form: its tokens are chosen, and its text is read, here. */
class StaticConversation(
    private val folder: PackageFolder,
    private val manifest: String,
    private val form: StaticForm,
) : Conversation {
    private var module: Module? = null
    private var dialogue: Dialogue? = null

    override fun load() {
        val tokenizer = Tokenizer.read(folder.file("tokenizer.json").readText())
        val limits = DialogueLimits(form.prefillTokens, form.positions, readStopIds(manifest))
        val loaded = Module.load(folder.program.path, Module.LOAD_MODE_MMAP)
        module = loaded
        dialogue = Dialogue(loadStatic(loaded, form), tokenizer, limits)
    }

    override fun answer(message: String, onText: (String) -> Unit): Speed {
        val stopwatch = Stopwatch(onText)
        val text = folder.prompt(message).text
        return stopwatch.speed(checkNotNull(dialogue).answer(text, stopwatch::piece))
    }

    override fun stop() {
        dialogue?.stop()
    }

    override fun forget() {
        dialogue?.forget()
    }

    override fun close() {
        module?.close()
    }
}
