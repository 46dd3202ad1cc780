import CoreML
import Foundation
import HarnessCore

/// Where this device runs each operator, as `MLComputePlan` says; nil where it does not tell.
func readPlacement(of compiled: URL) -> Placement? {
    let done = DispatchSemaphore(value: 0)
    let box = Box()
    let configuration = MLModelConfiguration()
    configuration.computeUnits = .cpuAndNeuralEngine
    Task.detached {
        box.plan = try? await MLComputePlan.load(contentsOf: compiled, configuration: configuration)
        done.signal()
    }
    done.wait()
    guard let plan = box.plan, case .program(let program) = plan.modelStructure else { return nil }
    let functions = program.functions.sorted { $0.key < $1.key }.map { name, function in
        (name: name, operators: placements(in: function.block, plan))
    }
    return Placement(
        device: modelIdentifier(), system: systemName(), computeUnits: "cpu_and_ne",
        functions: functions)
}

private final class Box: @unchecked Sendable {
    var plan: MLComputePlan?
}

private func placements(
    in block: MLModelStructure.Program.Block, _ plan: MLComputePlan
) -> [OperatorPlacement] {
    block.operations.flatMap { operation -> [OperatorPlacement] in
        let inner = operation.blocks.flatMap { placements(in: $0, plan) }
        guard let usage = plan.deviceUsage(for: operation), let output = operation.outputs.first
        else { return inner }
        let name = operation.operatorName
        let own = OperatorPlacement(
            name: name.firstIndex(of: ".").map { String(name[name.index(after: $0)...]) } ?? name,
            output: output.name,
            preferred: unit(usage.preferred),
            supported: usage.supported.map(unit),
            cost: plan.estimatedCost(of: operation)?.weight)
        return [own] + inner
    }
}

private func unit(_ device: MLComputeDevice) -> String {
    switch device {
    case .cpu: return "cpu"
    case .gpu: return "gpu"
    case .neuralEngine: return "ane"
    @unknown default: return "cpu"
    }
}
