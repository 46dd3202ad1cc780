/**
 * The app's harness and the library's chat on a JVM: `plan PROGRAM PLAN RESULT [MANIFEST]`,
 * `chat FOLDER TEXT N OUT`, `talk FOLDER TEXT POSITIONS OUT`.
 */
package mobilepack.lab

import mobilepack.demo.loadEngine
import mobilepack.demo.loadStatic
import mobilepack.harness.Dialogue
import mobilepack.harness.DialogueLimits
import mobilepack.harness.Environment
import mobilepack.harness.Platform
import mobilepack.harness.RunPlan
import mobilepack.harness.SystemClock
import mobilepack.harness.Tokenizer
import mobilepack.harness.readStaticForm
import mobilepack.harness.runPlan
import mobilepack.harness.toJson
import org.pytorch.executorch.Module
import org.pytorch.executorch.extension.llm.LlmCallback
import org.pytorch.executorch.extension.llm.LlmGenerationConfig
import org.pytorch.executorch.extension.llm.LlmModule
import java.io.File

private class Lab(private val program: File, private val manifest: File?) : Platform {
    override val clock = SystemClock
    override fun resetPeak() = "since process start"
    override fun residentBytes() = memory("VmRSS")
    override fun peakBytes() = memory("VmHWM")
    override fun conditions(): Map<String, String> = emptyMap()
    override fun load(plan: RunPlan) = loadEngine(program, manifest, plan, 1)
    override fun environment(plan: RunPlan, conditions: Map<String, String>) = Environment(
        kind = "emulator",
        representative = false,
        name = "Android library on a Debian JVM",
        cpu = System.getProperty("os.arch"),
        threads = 1,
        runtime = mapOf("java" to System.getProperty("java.version")),
        conditions = conditions,
    )

    private fun memory(field: String): Long =
        File("/proc/self/status").readLines().first { it.startsWith("$field:") }
            .filter { it.isDigit() }.toLong() * 1024
}

/** The library prints what it generates as well, so the text goes to a file. */
private fun chat(folder: File, prompt: String, tokens: Int, out: File) {
    val module = LlmModule(folder.resolve("model.pte").path, folder.resolve("tokenizer.json").path, 0f)
    module.load()
    val listener = object : LlmCallback {
        override fun onResult(result: String) = out.appendText(result)
        override fun onStats(stats: String) = System.err.println(stats)
    }
    val config = LlmGenerationConfig.create().echo(false).temperature(0f).seqLen(tokens).build()
    module.generate(prompt, config, listener)
}

/** The app's own chat with a program of the static form. */
private fun talk(folder: File, prompt: String, positions: Int, out: File) {
    val form = checkNotNull(readStaticForm(folder.resolve("manifest.json").readText()))
    val tokenizer = Tokenizer.read(folder.resolve("tokenizer.json").readText())
    val module = Module.load(folder.resolve("model.pte").path, Module.LOAD_MODE_MMAP, 1)
    val limits = DialogueLimits(form.prefillTokens, positions, emptySet())
    Dialogue(loadStatic(module, form), tokenizer, limits).answer(prompt, out::appendText)
}

fun main(arguments: Array<String>) {
    if (arguments[0] == "chat") {
        chat(File(arguments[1]), arguments[2], arguments[3].toInt(), File(arguments[4]))
    } else if (arguments[0] == "talk") {
        talk(File(arguments[1]), arguments[2], arguments[3].toInt(), File(arguments[4]))
    } else {
        val plan = File(arguments[2]).readBytes()
        val lab = Lab(File(arguments[1]), arguments.getOrNull(4)?.let(::File))
        val result = runPlan(plan, lab) { item, done, total ->
            System.err.println("$done/$total $item")
        }
        File(arguments[3]).writeText(result.toJson())
    }
    System.out.flush()
    Runtime.getRuntime().halt(0) // static destructors of two C++ libraries do not agree on an order
}
