import Foundation

/// Writes JSON on one line, fields in the order in which they are added.
struct JsonWriter {
    private(set) var text = ""
    private var needsComma = false

    mutating func object(_ fields: (inout JsonWriter) -> Void) {
        nest("{", "}", fields)
    }

    mutating func list<Value>(_ values: [Value], _ one: (inout JsonWriter, Value) -> Void) {
        nest("[", "]") { writer in
            for value in values { one(&writer, value) }
        }
    }

    mutating func key(_ name: String) {
        separate()
        quote(name)
        text += ":"
        needsComma = false
    }

    mutating func string(_ value: String) {
        separate()
        quote(value)
    }

    mutating func int<Number: BinaryInteger>(_ value: Number) {
        separate()
        text += "\(value)"
    }

    mutating func bool(_ value: Bool) {
        separate()
        text += value ? "true" : "false"
    }

    mutating func null() {
        separate()
        text += "null"
    }

    /// 9 significant digits name every float32 (IEEE 754: 1 + ceil(24 log10 2)); more is noise.
    mutating func float(_ value: Float) {
        separate()
        text += String(format: "%.9g", Double(value))
    }

    mutating func double(_ value: Double) {
        separate()
        text += "\(value)"
    }

    private mutating func nest(
        _ open: String, _ close: String, _ inside: (inout JsonWriter) -> Void
    ) {
        separate()
        text += open
        needsComma = false
        inside(&self)
        text += close
        needsComma = true
    }

    private mutating func separate() {
        if needsComma { text += "," }
        needsComma = true
    }

    private mutating func quote(_ value: String) {
        text += "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\u{0}"..<"\u{20}": text += String(format: "\\u%04x", scalar.value)
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }
}
