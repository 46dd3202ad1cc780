package mobilepack.demo

import android.app.Activity
import android.os.Bundle
import android.util.AtomicFile
import android.util.Log
import android.view.WindowManager
import android.widget.TextView
import mobilepack.harness.PlanRefused
import mobilepack.harness.runPlan
import mobilepack.harness.toJson
import org.pytorch.executorch.ExecutorchRuntimeException
import java.io.File
import java.io.IOException
import kotlin.concurrent.thread

private const val TAG = "mobilepack"

/** Carries out `files/run_plan.json` and writes `files/run_result.json`, whole or not at all. */
class PlanActivity : Activity() {
    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.plan)
        // A screen that goes dark slows the processor down.
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        thread(name = "run plan") { say(run()) }
    }

    private fun run(): String = try {
        val result = filesDir.resolve("run_result.json")
        AtomicFile(result).delete()
        val plan = filesDir.resolve("run_plan.json").readBytes()
        val found = runPlan(plan, Phone(this, openPackage(this))) { item, done, total ->
            if (done < total) say(getString(R.string.running, done + 1, total, item))
        }
        write(result, found.toJson())
        getString(R.string.written, result.path)
    } catch (error: PlanRefused) {
        failed(error)
    } catch (error: IOException) {
        failed(error)
    } catch (error: ExecutorchRuntimeException) {
        failed(error)
    }

    private fun failed(error: Exception): String {
        Log.e(TAG, "the plan failed", error)
        return getString(R.string.failed, error.message)
    }

    private fun say(line: String) {
        Log.i(TAG, line)
        runOnUiThread { findViewById<TextView>(R.id.log).append("$line\n") }
    }
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
