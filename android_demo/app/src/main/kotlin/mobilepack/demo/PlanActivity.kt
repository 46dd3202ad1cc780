package mobilepack.demo

import android.app.Activity
import android.os.Bundle
import android.util.Log
import android.view.WindowManager
import android.widget.TextView
import kotlin.concurrent.thread

private const val TAG = "mobilepack"

/** Carries out `files/run_plan.json` and says how far it is. */
class PlanActivity : Activity() {
    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.plan)
        // A screen that goes dark slows the processor down.
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        thread(name = "run plan") { say(run()) }
    }

    private fun run(): String {
        val end = carryOut(this) { item, done, total ->
            if (done < total) say(getString(R.string.running, done + 1, total, item))
        }
        end.error?.let { Log.e(TAG, "the plan failed", it) }
        return end.result?.let { getString(R.string.written, it.path) }
            ?: getString(R.string.failed, end.error?.message)
    }

    private fun say(line: String) {
        Log.i(TAG, line)
        runOnUiThread { findViewById<TextView>(R.id.log).append("$line\n") }
    }
}
