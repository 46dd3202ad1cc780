package mobilepack.demo

import android.app.Activity
import android.app.Instrumentation
import android.os.Bundle

/**
 * The entry for labs: `am instrument -w -r ID/mobilepack.demo.PlanInstrumentation` carries out
 * `files/run_plan.json`, says on its output which item begins, and ends when the result is written.
 */
class PlanInstrumentation : Instrumentation() {
    override fun onCreate(arguments: Bundle?) {
        super.onCreate(arguments)
        start()
    }

    override fun onStart() {
        super.onStart()
        val end = carryOut(targetContext) { item, done, total -> sendStatus(0, status(item, done, total)) }
        val said = Bundle()
        end.error?.let { said.putString("error", it.message ?: it.javaClass.name) }
        end.result?.let { said.putString("result", it.path) }
        finish(if (end.result != null) Activity.RESULT_OK else Activity.RESULT_CANCELED, said)
    }
}

private fun status(item: String, done: Int, total: Int) = Bundle().apply {
    putString("item", item)
    putInt("done", done)
    putInt("total", total)
}
