package mobilepack.demo

import android.content.Context
import android.system.ErrnoException
import android.system.Os
import android.util.Log

private const val VARIABLE = "ADSP_LIBRARY_PATH"

/**
 * Where phones keep what their DSP loads; the variable takes their place, so they are named again
 * (the list is that of XiaoMi/mace#506). The DSP's loader parts folders by `;` (qualcomm/fastrpc#379).
 */
private const val SYSTEM = "/system/lib/rfsa/adsp;/system/vendor/lib/rfsa/adsp;/dsp"

/**
 * Tells the DSP's loader where the app's libraries are, among them the one that runs on the NPU
 * itself: it searches no app's folder of its own accord. What is set already stays.
 */
fun pointDspAtLibraries(context: Context) {
    try {
        Os.setenv(VARIABLE, dspFolders(context), false)
    } catch (error: ErrnoException) {
        Log.w("mobilepack", "cannot set $VARIABLE", error) // the NPU then says what it misses
    }
}

internal fun dspFolders(context: Context) = "${context.applicationInfo.nativeLibraryDir};$SYSTEM"
