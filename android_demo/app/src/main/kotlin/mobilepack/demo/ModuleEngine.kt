package mobilepack.demo

import mobilepack.harness.Engine
import mobilepack.harness.Refeeding
import mobilepack.harness.RunPlan
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.io.File

/** Its presence says that a program has a recurrent state (mobilepack/contract/manifest.py). */
private const val RECURRENT = "use_recurrent_state"

/** One method of a program that ExecuTorch has loaded. */
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

/** Maps the program and prepares the plan's method, with a pool of so many threads. */
fun loadEngine(program: File, plan: RunPlan, threads: Int): Engine {
    val module = Module.load(program.path, Module.LOAD_MODE_MMAP, threads)
    module.loadMethod(plan.method)
    val engine = ModuleEngine(module, plan.method)
    return if (RECURRENT in module.getMethods()) Refeeding(engine, plan.prefillChunk) else engine
}
