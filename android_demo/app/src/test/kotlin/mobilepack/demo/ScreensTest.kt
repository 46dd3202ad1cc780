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

private const val CACHE = """{"name": "v_0", "dtype": "int8", "shape": [1, 1, 8, 2]}"""
private const val TOKENS = """{"name": "tokens", "dtype": "int32", "shape": [1, 1]}"""
private const val LOGITS = """{"name": "logits", "dtype": "float32", "shape": [1, 4]}"""
private const val METHOD = """"inputs": [$TOKENS, $CACHE], "outputs": [$LOGITS, $CACHE]"""
private const val MANIFEST = """{"static": {"past": 8, "prefill_tokens": 1, "mask_value": -1.0, "windows": [0]},
    "methods": [{"name": "prefill", $METHOD}, {"name": "decode", $METHOD}]}"""

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
    fun `the chat refuses tensors that Java does not know, and vocabularies that it cannot read`() {
        val root = files.resolve("package").apply { mkdirs() }
        root.resolve("model.pte").writeText("x")
        root.resolve("manifest.json").writeText(MANIFEST.replace("int8", "uint16"))
        opened(ChatActivity::class.java)
            .waitFor(R.id.status, "prefill: inputs: v_0: dtype is 'uint16', known are float32, float16, int64")
        root.resolve("manifest.json").writeText(MANIFEST)
        opened(ChatActivity::class.java).waitFor(R.id.status, "tokenizer.json is not in $root")
        root.resolve("tokenizer.json").writeText("""{"model": {"type": "Unigram"}}""")
        opened(ChatActivity::class.java).waitFor(R.id.status, "vocabularies of byte pairs, this one is Unigram")
    }

    @Test
    fun `a plan whose program has a manifest of its own is held against it before it is loaded`() {
        val root = files.resolve("package/run").apply { mkdirs() }
        root.resolve("abc.pte").writeText("x")
        root.resolve("abc.json").writeText(MANIFEST.replace("-1.0", "1"))
        files.resolve("run_plan.json").writeText(PLAN.replaceFirst("{", """{"program": "run/abc.pte", """))
        opened(PlanActivity::class.java).waitFor(R.id.log, "manifest.json: static: mask_value must be below 0")
    }

    @Test
    fun `the DSP's loader is told of the app's libraries first`() {
        val context = RuntimeEnvironment.getApplication()
        context.applicationInfo.nativeLibraryDir = "/data/app/x/lib/arm64"
        assertEquals("/data/app/x/lib/arm64", dspFolders(context).substringBefore(";"))
        assertTrue("/dsp" in dspFolders(context).split(";"))
    }

    @Test
    fun `a package's files stay inside it, and prompt txt frames the message`() {
        val root = files.resolve("package").apply { mkdirs() }
        files.resolve("secret").writeText("x")
        root.resolve("prompt.txt").writeText("<u>{message}</u>")
        val folder = PackageFolder(root)
        assertEquals("<u>hi {message}</u>", folder.prompt("hi {message}").text)
        assertEquals(0, folder.prompt("hi").bos)
        root.resolve("prompt.txt").writeText("{bos}{message}")
        assertEquals("{bos}hi", folder.prompt("{bos}hi").text)
        assertEquals(1, folder.prompt("hi").bos)
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
