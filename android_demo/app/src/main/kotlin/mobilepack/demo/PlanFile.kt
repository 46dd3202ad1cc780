package mobilepack.demo

import android.content.Context
import android.util.AtomicFile
import mobilepack.harness.Progress
import mobilepack.harness.Refused
import mobilepack.harness.runPlan
import mobilepack.harness.toJson
import org.pytorch.executorch.ExecutorchRuntimeException
import java.io.File
import java.io.IOException

/** How a plan ended: the file that was written, or why there is none. */
class PlanEnd(val result: File?, val error: Exception?)

/** Carries out `files/run_plan.json` and writes `files/run_result.json`, whole or not at all. */
fun carryOut(context: Context, progress: Progress): PlanEnd = try {
    val result = context.filesDir.resolve("run_result.json")
    AtomicFile(result).delete()
    val plan = context.filesDir.resolve("run_plan.json").readBytes()
    write(result, runPlan(plan, Phone(context, openPackage(context)), progress).toJson())
    PlanEnd(result, null)
} catch (error: Refused) {
    PlanEnd(null, error)
} catch (error: IOException) {
    PlanEnd(null, error)
} catch (error: ExecutorchRuntimeException) {
    PlanEnd(null, error)
}

private fun write(file: File, text: String) {
    val atomic = AtomicFile(file)
    val stream = atomic.startWrite()
    try {
        stream.write(text.toByteArray())
        atomic.finishWrite(stream)
    } catch (error: IOException) {
        atomic.failWrite(stream)
        throw error
    }
}
