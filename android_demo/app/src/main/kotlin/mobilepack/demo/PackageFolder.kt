package mobilepack.demo

import android.content.Context
import java.io.File
import java.io.FileNotFoundException

private const val BOS = "{bos}"

/** A text for the model; [bos] tokens that begin a text are put in front of it. */
class Prompt(val text: String, val bos: Int)

/** What mobilepack built, where the app may read it: `files/package`. */
class PackageFolder(private val root: File) {
    val program: File get() = file("model.pte")

    /**
     * What says how a program is called: the file beside it that is named after it, as the programs
     * of run plans have, or the package's; null if there is neither.
     */
    fun manifest(program: File): File? =
        listOf("${program.nameWithoutExtension}.json", "manifest.json")
            .map { program.resolveSibling(it) }
            .firstOrNull { it.isFile }

    /** The tokenizer that the LLM runner reads; packages have one of the two. */
    val tokenizer: File
        get() = root.resolve("tokenizer.json").takeIf { it.isFile } ?: file("tokenizer.model")

    /**
     * How a message becomes the text that the model sees: `prompt.txt`, in which `{message}` stands
     * for it, behind `{bos}` where the text of the first token would not be read as one. Without
     * the file, the message as it is: the runner applies no chat template.
     */
    fun prompt(message: String): Prompt {
        val template = root.resolve("prompt.txt").takeIf { it.isFile }?.readText() ?: return Prompt(message, 0)
        val bos = template.startsWith(BOS)
        return Prompt(template.removePrefix(BOS).replace("{message}", message), if (bos) 1 else 0)
    }

    /**
     * A file by its path in the package.
     *
     * @throws FileNotFoundException if it is absent, or outside.
     */
    fun file(path: String): File {
        val found = root.resolve(path).canonicalFile
        if (found.isFile && found.startsWith(root.canonicalFile)) return found
        throw FileNotFoundException("$path is not in $root; push a package (README.md)")
    }
}

private const val FOLDER = "package"

/** Its presence says that `mobilepack deploy` was interrupted between two packages. */
private const val UNFINISHED = ".deploying"

/** The package that was pushed, or else the one of the app's assets, copied at the first start. */
fun openPackage(context: Context): PackageFolder {
    pointDspAtLibraries(context)
    val root = context.filesDir.resolve(FOLDER)
    if (!root.isDirectory && context.assets.list(FOLDER).orEmpty().isNotEmpty()) {
        val aside = context.filesDir.resolve("$FOLDER.part")
        aside.deleteRecursively()
        copyAssets(context, FOLDER, aside)
        check(aside.renameTo(root)) { "cannot rename $aside" }
    }
    if (root.resolve(UNFINISHED).exists()) {
        throw FileNotFoundException("$root is unfinished; deploy the package again")
    }
    return PackageFolder(root)
}

private fun copyAssets(context: Context, path: String, to: File) {
    val names = context.assets.list(path).orEmpty()
    if (names.isEmpty()) {
        context.assets.open(path).use { source -> to.outputStream().use { source.copyTo(it) } }
    } else {
        to.mkdirs()
        for (name in names) copyAssets(context, "$path/$name", to.resolve(name))
    }
}
