package mobilepack.demo

import mobilepack.harness.Engine
import mobilepack.harness.Refeeding
import mobilepack.harness.RunPlan
import mobilepack.harness.readStaticForm
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.io.File

/** Its presence says that a program has a recurrent state (mobilepack/contract/manifest.py). */
private const val RECURRENT = "use_recurrent_state"

/** One method of a program of the dynamic form that ExecuTorch has loaded. */
class ModuleEngine(private val module: Module, private val method: String) : Engine {
    override fun step(tokens: LongArray, position: Int): FloatArray {
        val ids = Tensor.fromBlob(tokens, longArrayOf(1, tokens.size.toLong()))
        val where = Tensor.fromBlob(longArrayOf(position.toLong()), longArrayOf(1))
        val results = module.execute(method, EValue.from(ids), EValue.from(where))
        val logits = results.first().toTensor()
        val values = logits.dataAsFloatArray
        val vocabulary = logits.shape().last().toInt()
        return if (values.size == vocabulary) values else values.copyOfRange(values.size - vocabulary, values.size)
    }
}

/**
 * Maps a program and prepares its methods, with a pool of so many threads.
 *
 * @param manifest What says how it is called; null if there is none, which is a dynamic program's.
 * @throws ManifestRefused before it is loaded, if the app cannot call it.
 */
fun loadEngine(program: File, manifest: File?, plan: RunPlan, threads: Int): Engine {
    val form = manifest?.let { readStaticForm(it.readText()) }
    val module = Module.load(program.path, Module.LOAD_MODE_MMAP, threads)
    if (form != null) return loadStatic(module, form)
    module.loadMethod(plan.method)
    val engine = ModuleEngine(module, plan.method)
    return if (RECURRENT in module.getMethods()) Refeeding(engine, plan.prefillChunk) else engine
}
