package mobilepack.demo

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.os.SystemClock
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.ScrollView
import android.widget.TextView
import mobilepack.harness.Refused
import org.pytorch.executorch.ExecutorchRuntimeException
import java.io.IOException
import java.util.concurrent.Executors

/** A chat: one worker owns the model, the screen only hears from it. */
class ChatActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor()

    @Volatile private var conversation: Conversation? = null
    private val transcript by lazy { findViewById<TextView>(R.id.transcript) }
    private val status by lazy { findViewById<TextView>(R.id.status) }
    private val prompt by lazy { findViewById<EditText>(R.id.prompt) }
    private val scroll by lazy { findViewById<ScrollView>(R.id.scroll) }
    private val send by lazy { findViewById<Button>(R.id.send) }
    private val stop by lazy { findViewById<Button>(R.id.stop) }
    private val newChat by lazy { findViewById<Button>(R.id.new_chat) }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.chat)
        send.setOnClickListener { ask() }
        stop.setOnClickListener { conversation?.stop() }
        newChat.setOnClickListener { begin() }
        findViewById<Button>(R.id.run_plan).setOnClickListener {
            startActivity(Intent(this, PlanActivity::class.java))
        }
        load()
    }

    override fun onDestroy() {
        conversation?.stop()
        worker.execute { conversation?.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun load() = work {
        val folder = openPackage(this)
        show(getString(R.string.loading, folder.program.name))
        val start = SystemClock.elapsedRealtimeNanos()
        conversation = openConversation(folder).also { it.load() }
        show(getString(R.string.ready, (SystemClock.elapsedRealtimeNanos() - start) / 1e9))
    }

    private fun ask() {
        val message = prompt.text.toString().trim()
        if (message.isEmpty()) return
        prompt.text.clear()
        append("\n> $message\n")
        work {
            val speed = conversation?.answer(message) { append(it) } ?: return@work
            append("\n")
            val line = getString(R.string.speed, speed.tokens, speed.tokensPerSecond, speed.firstAfterSeconds)
            show(line)
        }
    }

    private fun begin() {
        transcript.text = ""
        work { conversation?.forget() }
    }

    /** Runs one piece of work after the other, off the screen's thread; failures are shown. */
    private fun work(task: () -> Unit) {
        busy(true)
        worker.execute {
            try {
                task()
            } catch (error: Refused) {
                show(getString(R.string.failed, error.message))
            } catch (error: IOException) {
                show(getString(R.string.failed, error.message))
            } catch (error: ExecutorchRuntimeException) {
                show(getString(R.string.failed, error.message))
            }
            runOnUiThread { busy(false) }
        }
    }

    private fun busy(busy: Boolean) {
        send.isEnabled = !busy && conversation != null
        newChat.isEnabled = send.isEnabled
        stop.isEnabled = busy
    }

    private fun append(text: String) = runOnUiThread {
        transcript.append(text)
        scroll.post { scroll.fullScroll(View.FOCUS_DOWN) }
    }

    private fun show(text: String) = runOnUiThread { status.text = text }
}
