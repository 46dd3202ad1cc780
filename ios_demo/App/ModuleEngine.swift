import ExecuTorch
import Foundation
import HarnessCore

/// Its presence says that a program has a recurrent state (mobilepack/contract/manifest.py).
private let recurrent = "use_recurrent_state"

/// A result that is not what the plan's method promises.
struct UnexpectedResult: Swift.Error, CustomStringConvertible {
    let description: String
}

/// One method of a program that ExecuTorch has loaded.
final class ModuleEngine: Engine {
    private let module: Module
    private let method: String

    init(_ module: Module, _ method: String) {
        self.module = module
        self.method = method
    }

    func step(_ tokens: ArraySlice<Int>, at position: Int) throws -> [Float] {
        let ids = Tensor<Int64>(tokens.map { Int64($0) }, shape: [1, tokens.count])
        let place = Tensor<Int64>([Int64(position)], shape: [1])
        let values: [Value] = try module.execute(method, [ids, place])
        guard let logits: Tensor<Float> = values.first?.tensor(), let size = logits.shape.last
        else {
            throw UnexpectedResult(description: "\(method) returns no float32 logits")
        }
        return Array(logits.scalars().suffix(size))
    }
}

/// Maps the program and prepares the plan's method.
func loadModule(_ program: URL, _ plan: RunPlan) throws -> Engine {
    let module = Module(filePath: program.path, loadMode: .mmap)
    try module.load(plan.method)
    let engine = ModuleEngine(module, plan.method)
    let isRecurrent = try module.methodNames().contains(recurrent)
    return isRecurrent ? Refeeding(engine, chunk: plan.prefillChunk) : engine
}
