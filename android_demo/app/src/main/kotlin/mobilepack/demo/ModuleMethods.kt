package mobilepack.demo

import mobilepack.harness.Dtype
import mobilepack.harness.Engine
import mobilepack.harness.ManifestRefused
import mobilepack.harness.MethodSpec
import mobilepack.harness.Methods
import mobilepack.harness.Numbers
import mobilepack.harness.Outputs
import mobilepack.harness.StaticForm
import mobilepack.harness.StaticSession
import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer
import java.nio.ShortBuffer

/** Prepares both methods of a program of the static form; its cache lies with the app. */
fun loadStatic(module: Module, form: StaticForm): Engine {
    val missing = listOf(form.prefill.name, form.decode.name) - module.getMethods().toSet()
    if (missing.isNotEmpty()) {
        val has = module.getMethods().sorted().joinToString()
        throw ManifestRefused("the program has no method ${missing.first()}, it has $has")
    }
    module.loadMethod(form.prefill.name)
    module.loadMethod(form.decode.name)
    return StaticSession(form, ModuleMethods(module))
}

/**
 * Methods that ExecuTorch has loaded, run on the session's own memory.
 *
 * A tensor is made once for each input, over its direct buffer: ExecuTorch is given the address, in
 * every call the same. What comes back lies in the program's memory until the next call, and is
 * copied once, to where the session wants it.
 */
private class ModuleMethods(private val module: Module) : Methods {
    private val given = mutableMapOf<MethodSpec, Array<EValue>>()

    override fun run(method: MethodSpec, inputs: List<Numbers>): Outputs {
        val known = given[method]
        val values = known ?: Array(inputs.size) { EValue.from(tensor(inputs[it])) }
        val made = module.execute(method.name, *values)
        if (known == null) {
            check(method, made)
            given[method] = values
        }
        return Outputs { index, to -> copy(made[index].toTensor(), method.outputs[index].dtype, to) }
    }
}

private fun tensor(numbers: Numbers): Tensor {
    val shape = LongArray(numbers.spec.shape.size) { numbers.spec.shape[it].toLong() }
    val memory = numbers.view
    return when (numbers.spec.dtype) {
        Dtype.FLOAT32 -> Tensor.fromBlob(memory as FloatBuffer, shape)
        Dtype.FLOAT16 -> Tensor.fromBlob(memory as ShortBuffer, shape)
        Dtype.INT64 -> Tensor.fromBlob(memory as LongBuffer, shape)
        Dtype.INT32 -> Tensor.fromBlob(memory as IntBuffer, shape)
        Dtype.INT8 -> Tensor.fromBlob(memory as ByteBuffer, shape)
        Dtype.UINT8 -> Tensor.fromBlobUnsigned(memory as ByteBuffer, shape)
    }
}

private fun copy(made: Tensor, dtype: Dtype, to: Buffer) = when (dtype) {
    Dtype.FLOAT32 -> made.copyDataInto(to as FloatBuffer)
    Dtype.FLOAT16 -> made.copyDataInto(to as ShortBuffer)
    Dtype.INT64 -> made.copyDataInto(to as LongBuffer)
    Dtype.INT32 -> made.copyDataInto(to as IntBuffer)
    Dtype.INT8 -> made.copyDataInto(to as ByteBuffer)
    Dtype.UINT8 -> made.copyDataIntoUnsigned(to as ByteBuffer)
}

/** Holds what a first call returned against the manifest; ExecuTorch checks the inputs itself. */
private fun check(method: MethodSpec, made: Array<EValue>) {
    if (made.size != method.outputs.size) {
        val counts = "${method.outputs.size} outputs in manifest.json and ${made.size} in the program"
        throw ManifestRefused("${method.name} has $counts")
    }
    for ((spec, value) in method.outputs.zip(made)) {
        val ours = said(type(spec.dtype), spec.shape.toList())
        val theirs = said(value.toTensor().dtype(), value.toTensor().shape().toList())
        if (ours == theirs) continue
        val differ = "is $ours in manifest.json and $theirs in the program"
        throw ManifestRefused("${method.name}: ${spec.name} $differ")
    }
}

private fun said(type: DType, shape: List<Number>) = "${type.name.lowercase()} [${shape.joinToString()}]"

private fun type(dtype: Dtype): DType = when (dtype) {
    Dtype.FLOAT32 -> DType.FLOAT
    Dtype.FLOAT16 -> DType.HALF
    Dtype.INT64 -> DType.INT64
    Dtype.INT32 -> DType.INT32
    Dtype.INT8 -> DType.INT8
    Dtype.UINT8 -> DType.UINT8
}
