package mobilepack.demo

import android.app.Activity
import android.os.Looper
import android.widget.Button
import android.widget.TextView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import java.io.File

private const val PATIENCE_MS = 20_000L
private const val PLAN = """{"max_seq_len": 8, "prefill_chunk": 4, "items": [
    {"kind": "teacher", "name": "t", "token_ids": [1, 2], "calls": [2]}]}"""

/** What the screens say where no program can be loaded. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
class ScreensTest {
    private val files: File = RuntimeEnvironment.getApplication().filesDir

    @Before
    fun empty() {
        files.listFiles().orEmpty().forEach { it.deleteRecursively() }
    }

    @Test
    fun `the chat names the file that it misses and lets nobody send`() {
        val chat = opened(ChatActivity::class.java)
        chat.waitFor(R.id.status, "model.pte is not in $files/package; push a package")
        assertFalse(chat.findViewById<Button>(R.id.send).isEnabled)
        assertFalse(chat.findViewById<Button>(R.id.stop).isEnabled)
    }

    @Test
    fun `a package between two deployments is not loaded`() {
        files.resolve("package").mkdirs()
        files.resolve("package/.deploying").writeText("")
        opened(ChatActivity::class.java).waitFor(R.id.status, "is unfinished; deploy the package again")
    }

    @Test
    fun `a plan that cannot be obeyed is refused with every reason, and an old result is gone`() {
        files.resolve("run_plan.json").writeText(PLAN.replace("4", "1").replace("}", """, "x": 1}"""))
        files.resolve("run_result.json").writeText("old")
        val said = opened(PlanActivity::class.java).waitFor(R.id.log, "Failed: ")
        assertTrue(said, "items.0.x: unknown field; x: unknown field" in said)
        assertFalse(files.resolve("run_result.json").exists())
    }

    @Test
    fun `a good plan gets as far as the program that is not there`() {
        files.resolve("run_plan.json").writeText(PLAN)
        opened(PlanActivity::class.java).waitFor(R.id.log, "model.pte is not in")
        assertFalse(files.resolve("run_result.json").exists())
    }

    @Test
    fun `a package's files stay inside it, and prompt txt frames the message`() {
        val root = files.resolve("package").apply { mkdirs() }
        files.resolve("secret").writeText("x")
        root.resolve("prompt.txt").writeText("<u>{message}</u>")
        val folder = PackageFolder(root)
        assertEquals("<u>hi {message}</u>", folder.prompt("hi {message}"))
        val outside = runCatching { folder.file("../secret") }
        assertTrue("$outside", outside.exceptionOrNull() is java.io.FileNotFoundException)
    }
}

private fun <T : Activity> opened(kind: Class<T>): T = Robolectric.buildActivity(kind).setup().get()

/** Lets the screen catch up with its worker until a view says what is expected; returns it all. */
private fun Activity.waitFor(view: Int, expected: String): String {
    val end = System.nanoTime() + PATIENCE_MS * 1_000_000
    var said = ""
    while (expected !in said && System.nanoTime() < end) {
        Thread.sleep(10)
        shadowOf(Looper.getMainLooper()).idle()
        said = findViewById<TextView>(view).text.toString()
    }
    assertTrue("'$expected' is not in '$said'", expected in said)
    return said
}
