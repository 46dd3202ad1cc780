package mobilepack.demo

import android.content.Context
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import mobilepack.harness.Engine
import mobilepack.harness.Environment
import mobilepack.harness.Platform
import mobilepack.harness.RunPlan
import mobilepack.harness.SystemClock
import java.io.File
import java.io.IOException

private const val UNKNOWN = "unknown"
private const val FREQUENCY = "/sys/devices/system/cpu/cpu0/cpufreq"

/** This phone, with a package's program in the app's own process. */
class Phone(private val context: Context, private val folder: PackageFolder) : Platform {
    override val clock = SystemClock

    override fun resetPeak(): String = try {
        File("/proc/self/clear_refs").writeText("5") // proc(5): resets VmHWM
        "since before the load"
    } catch (_: IOException) {
        "since process start"
    }

    override fun residentBytes() = memory("VmRSS")

    override fun peakBytes() = memory("VmHWM")

    override fun conditions(): Map<String, String> = mapOf(
        "battery_percent" to "${battery().getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY)}",
        "charging" to "${battery().isCharging}",
        "frequency_khz" to firstLine("$FREQUENCY/scaling_cur_freq"),
        "governor" to firstLine("$FREQUENCY/scaling_governor"),
        "low_power_mode" to "${power().isPowerSaveMode}",
        "thermal_status" to if (Build.VERSION.SDK_INT >= 29) "${power().currentThermalStatus}" else UNKNOWN,
    )

    override fun load(plan: RunPlan): Engine {
        val program = folder.file(plan.program)
        return loadEngine(program, folder.manifest(program), plan, threads(plan))
    }

    override fun environment(plan: RunPlan, conditions: Map<String, String>) = Environment(
        kind = if (isEmulator()) "emulator" else "device",
        representative = !isEmulator(),
        name = "${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE}",
        cpu = if (Build.VERSION.SDK_INT >= 31) Build.SOC_MODEL else Build.HARDWARE,
        threads = threads(plan),
        runtime = mapOf("executorch" to context.getString(R.string.executorch_version)),
        conditions = conditions,
    )

    /** Half of the processors where the plan leaves it open, as ExecuTorch's own `Module` does. */
    private fun threads(plan: RunPlan): Int =
        if (plan.threads > 0) plan.threads else maxOf(1, Runtime.getRuntime().availableProcessors() / 2)

    private fun battery() = context.getSystemService(BatteryManager::class.java)

    private fun power() = context.getSystemService(PowerManager::class.java)
}

/** The virtual boards of Android's emulator, old and new. */
private fun isEmulator() = Build.HARDWARE in setOf("goldfish", "ranchu")

private fun firstLine(path: String): String = try {
    File(path).useLines { it.firstOrNull() } ?: UNKNOWN
} catch (_: IOException) {
    UNKNOWN // SELinux hides it on some phones
}

/** A field of /proc/self/status, which is in kB, in bytes. */
private fun memory(field: String): Long {
    val line = File("/proc/self/status").readLines().first { it.startsWith("$field:") }
    return line.filter { it.isDigit() }.toLong() * 1024
}
