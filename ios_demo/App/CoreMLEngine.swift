import CoreML
import Foundation
import HarnessCore

/// The static form of a Core ML package: its functions `prefill` and `decode`, the cache kept here.
final class CoreMLEngine: Engine {
    private let form: StaticForm
    private let functions: [String: MLModel]
    private var caches: [String: MLMultiArray] = [:]

    init(_ form: StaticForm, _ functions: [String: MLModel]) throws {
        self.form = form
        self.functions = functions
        let inputs = functions["decode"]?.modelDescription.inputDescriptionsByName ?? [:]
        for (name, input) in inputs where isCache(name) {
            guard let shape = input.multiArrayConstraint?.shape else { continue }
            let cache = try MLMultiArray(shape: shape, dataType: .float16)
            memset(cache.dataPointer, 0, cache.count * MemoryLayout<UInt16>.size)
            caches[name] = cache
        }
    }

    func step(_ tokens: ArraySlice<Int>, at position: Int) throws -> [Float] {
        let name = form.method(for: tokens.count)
        guard let function = functions[name], let widths = widths(function),
            let given = form.inputs(tokens, at: position, widths)
        else {
            throw UnexpectedResult(
                description: "\(tokens.count) tokens from position \(position) on do not fit")
        }
        let outputs = try function.prediction(from: features(given))
        guard let logits = outputs.featureValue(for: "logits")?.multiArrayValue else {
            throw UnexpectedResult(description: "\(given.method) returns no logits")
        }
        for (name, cache) in caches {
            guard let new = outputs.featureValue(for: "new_" + name)?.multiArrayValue else {
                throw UnexpectedResult(description: "\(given.method) returns no new_\(name)")
            }
            let columns = form.keys == .channelsFirst && name.hasPrefix("k")
            keep(new, in: cache, isKey: columns, at: position, count: tokens.count)
        }
        return (0..<logits.count).map { logits[$0].floatValue }
    }

    /// How long ids and masks of a function are.
    private func widths(_ function: MLModel) -> StaticForm.Widths? {
        let inputs = function.modelDescription.inputDescriptionsByName
        let mask = inputs.first { $0.key.hasPrefix("mask") }?.value
        guard let ids = inputs["tokens"]?.multiArrayConstraint?.shape.last,
            let columns = mask?.multiArrayConstraint?.shape.last
        else { return nil }
        return StaticForm.Widths(ids: ids.intValue, columns: columns.intValue)
    }

    private func features(_ given: StaticForm.Inputs) throws -> MLDictionaryFeatureProvider {
        var named: [String: MLFeatureValue] = [:]
        let width = given.tokens.count
        for (name, ids) in [("tokens", given.tokens), ("positions", given.positions)] {
            let array = try MLMultiArray(shape: [1, NSNumber(value: width)], dataType: .int32)
            for (index, id) in ids.enumerated() { array[index] = NSNumber(value: id) }
            named[name] = MLFeatureValue(multiArray: array)
        }
        for (window, values) in zip(form.windows, given.masks) {
            let name = window == 0 ? "mask" : "mask_\(window)"
            let rows = given.method == "decode" ? 1 : form.prefillTokens
            let shape = [1, 1, rows, values.count / rows].map { NSNumber(value: $0) }
            let array = try MLMultiArray(shape: shape, dataType: .float16)
            for (index, value) in values.enumerated() { array[index] = NSNumber(value: value) }
            named[name] = MLFeatureValue(multiArray: array)
        }
        for (name, cache) in caches { named[name] = MLFeatureValue(multiArray: cache) }
        return try MLDictionaryFeatureProvider(dictionary: named)
    }

    /// Writes the last `count` columns [1, heads, channels, T] (`isKey`) or rows
    /// [1, heads, T, channels] to the cache; the very last position is never read again.
    private func keep(
        _ new: MLMultiArray, in cache: MLMultiArray, isKey: Bool, at position: Int, count: Int
    ) {
        let kept = min(position + count, form.past) - position
        let axis = isKey ? 3 : 2
        let first = new.shape[axis].intValue - count
        let other = new.shape[isKey ? 2 : 3].intValue
        for head in 0..<new.shape[1].intValue {
            for channel in 0..<other {
                for index in 0..<max(0, kept) {
                    let from = offset(new, head, channel, first + index, isKey)
                    let to = offset(cache, head, channel, position + index, isKey)
                    bits(cache)[to] = bits(new)[from]
                }
            }
        }
    }

    private func offset(
        _ array: MLMultiArray, _ head: Int, _ channel: Int, _ place: Int, _ isKey: Bool
    ) -> Int {
        let strides = array.strides.map(\.intValue)
        let (row, column) = isKey ? (channel, place) : (place, channel)
        return head * strides[1] + row * strides[2] + column * strides[3]
    }

    private func bits(_ array: MLMultiArray) -> UnsafeMutablePointer<UInt16> {
        array.dataPointer.assumingMemoryBound(to: UInt16.self)
    }
}

private func isCache(_ name: String) -> Bool {
    name != "tokens" && name != "positions" && !name.hasPrefix("mask")
}

/// Compiles and loads a package; its form is in the manifest beside it. What Core ML keeps of a
/// first load (the program specialised for this device) shortens the next.
func loadCoreML(_ package: URL) throws -> Engine {
    let folder = package.deletingLastPathComponent()
    let manifest = try Data(contentsOf: folder.appending(path: "manifest.json"))
    guard let form = try StaticForm.read(manifest) else {
        throw UnexpectedResult(description: "the manifest says nothing of a static form")
    }
    guard !form.states, package.pathExtension == "mlpackage" else {
        throw UnexpectedResult(
            description: "the app runs one package whose cache it keeps; this one has "
                + (form.states ? "states" : "several parts"))
    }
    let compiled = try compiledModel(package)
    var functions: [String: MLModel] = [:]
    for name in ["prefill", "decode"] {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = .cpuAndNeuralEngine
        if #available(iOS 18, *) { configuration.functionName = name }
        functions[name] = try MLModel(contentsOf: compiled, configuration: configuration)
    }
    return try CoreMLEngine(form, functions)
}

/// Where a package is kept compiled: Core ML's own cache goes by the path of what it loads.
func compiledPath(of package: URL) -> URL {
    package.deletingPathExtension().appendingPathExtension("mlmodelc")
}

private func compiledModel(_ package: URL) throws -> URL {
    let kept = compiledPath(of: package)
    if !FileManager.default.fileExists(atPath: kept.path) {
        try FileManager.default.moveItem(at: MLModel.compileModel(at: package), to: kept)
    }
    return kept
}
