// What ios_demo uses of Core ML, by hand: developer.apple.com/documentation/coreml (iOS 17.4).
import Foundation

public enum MLMultiArrayDataType { case double, float32, float16, int32 }
public final class MLMultiArray {
    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {}
    public var shape: [NSNumber] { fatalError() }
    public var strides: [NSNumber] { fatalError() }
    public var count: Int { fatalError() }
    public var dataType: MLMultiArrayDataType { fatalError() }
    public var dataPointer: UnsafeMutableRawPointer { fatalError() }
    public subscript(_ index: Int) -> NSNumber {
        get { fatalError() }
        set {}
    }
}
public final class MLFeatureValue {
    public init(multiArray: MLMultiArray) {}
    public var multiArrayValue: MLMultiArray? { fatalError() }
}
public protocol MLFeatureProvider {
    func featureValue(for name: String) -> MLFeatureValue?
}
public final class MLDictionaryFeatureProvider: MLFeatureProvider {
    public init(dictionary: [String: Any]) throws {}
    public func featureValue(for name: String) -> MLFeatureValue? { fatalError() }
}
public final class MLMultiArrayConstraint {
    public var shape: [NSNumber] { fatalError() }
    public var dataType: MLMultiArrayDataType { fatalError() }
}
public final class MLFeatureDescription {
    public var multiArrayConstraint: MLMultiArrayConstraint? { fatalError() }
}
public final class MLModelDescription {
    public var inputDescriptionsByName: [String: MLFeatureDescription] { fatalError() }
}
public enum MLComputeUnits { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }
public final class MLModelConfiguration {
    public init() {}
    public var computeUnits: MLComputeUnits = .all
    public var functionName: String?
}
public final class MLModel {
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {}
    public static func compileModel(at url: URL) throws -> URL { fatalError() }
    public var modelDescription: MLModelDescription { fatalError() }
    public func prediction(from input: MLFeatureProvider) throws -> MLFeatureProvider {
        fatalError()
    }
}
public final class MLCPUComputeDevice {}
public final class MLGPUComputeDevice {}
public final class MLNeuralEngineComputeDevice {}
public enum MLComputeDevice {
    case cpu(MLCPUComputeDevice)
    case gpu(MLGPUComputeDevice)
    case neuralEngine(MLNeuralEngineComputeDevice)
}
public enum MLModelStructure {
    case neuralNetwork, pipeline, unsupported
    case program(Program)

    public struct Program {
        public var functions: [String: Function] { fatalError() }

        public struct Function { public var block: Block { fatalError() } }
        public struct Block { public var operations: [Operation] { fatalError() } }
        public struct NamedValueType { public var name: String { fatalError() } }
        public struct Operation {
            public var operatorName: String { fatalError() }
            public var outputs: [NamedValueType] { fatalError() }
            public var blocks: [Block] { fatalError() }
        }
    }
}
public final class MLComputePlan {
    public struct Cost { public var weight: Double { fatalError() } }
    public struct DeviceUsage {
        public var preferred: MLComputeDevice { fatalError() }
        public var supported: [MLComputeDevice] { fatalError() }
    }
    public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws
        -> MLComputePlan
    { fatalError() }
    public var modelStructure: MLModelStructure { fatalError() }
    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? {
        fatalError()
    }
    public func estimatedCost(of operation: MLModelStructure.Program.Operation) -> Cost? {
        fatalError()
    }
}
