import Foundation

/// A JSON document, numbers as they were written: Foundation's own reader takes 32.0 for 32.
indirect enum Json: Equatable {
    case null
    case bool(Bool)
    case number(String)
    case text(String)
    case list([Json])
    case object([String: Json])
}

/// Why bytes are no JSON.
struct JsonError: Error, CustomStringConvertible {
    let description: String
}

/// Reads one JSON document (RFC 8259); a key that is there twice is refused.
struct JsonReader {
    private static let deepest = 64
    private let bytes: [UInt8]
    private var at = 0
    private var depth = 0

    private init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    static func read(_ data: Data) throws -> Json {
        guard String(data: data, encoding: .utf8) != nil else {
            throw JsonError(description: "its bytes are no UTF-8")
        }
        var reader = JsonReader([UInt8](data))
        let value = try reader.value()
        reader.skipBlanks()
        guard reader.at == reader.bytes.count else { throw reader.unexpected() }
        return value
    }

    private mutating func value() throws -> Json {
        skipBlanks()
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.deepest else { throw JsonError(description: "it is nested too deep") }
        switch peek() {
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try list()
        case UInt8(ascii: "\""): return .text(try text())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func object() throws -> Json {
        var fields: [String: Json] = [:]
        at += 1
        skipBlanks()
        if take("}") { return .object(fields) }
        repeat {
            skipBlanks()
            guard peek() == UInt8(ascii: "\"") else { throw unexpected() }
            let key = try text()
            skipBlanks()
            guard take(":") else { throw unexpected() }
            let found = try value()
            guard fields.updateValue(found, forKey: key) == nil else {
                throw JsonError(description: "\(key) is there twice")
            }
            skipBlanks()
        } while take(",")
        guard take("}") else { throw unexpected() }
        return .object(fields)
    }

    private mutating func list() throws -> Json {
        var values: [Json] = []
        at += 1
        skipBlanks()
        if take("]") { return .list(values) }
        repeat {
            values.append(try value())
            skipBlanks()
        } while take(",")
        guard take("]") else { throw unexpected() }
        return .list(values)
    }

    private mutating func number() throws -> Json {
        let start = at
        _ = take("-")
        let leadingZero = peek() == UInt8(ascii: "0")
        let whole = digits()
        guard whole > 0, !(leadingZero && whole > 1) else { throw unexpected() }
        if take("."), digits() == 0 { throw unexpected() }
        if take("e") || take("E") {
            if !take("+") { _ = take("-") }
            if digits() == 0 { throw unexpected() }
        }
        return .number(String(decoding: bytes[start..<at], as: UTF8.self))
    }

    private mutating func digits() -> Int {
        let start = at
        while let byte = peek(), (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { at += 1 }
        return at - start
    }

    private mutating func text() throws -> String {
        var units: [UInt8] = []
        at += 1
        while let byte = peek() {
            at += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: units, as: UTF8.self)
            case UInt8(ascii: "\\"): units += try escaped()
            case 0..<0x20: throw JsonError(description: "a text holds a control character")
            default: units.append(byte)
            }
        }
        throw unexpected()
    }

    private mutating func escaped() throws -> [UInt8] {
        guard let byte = peek() else { throw unexpected() }
        at += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
        case UInt8(ascii: "b"): return [8]
        case UInt8(ascii: "f"): return [12]
        case UInt8(ascii: "n"): return [10]
        case UInt8(ascii: "r"): return [13]
        case UInt8(ascii: "t"): return [9]
        case UInt8(ascii: "u"): return try unicode()
        default: throw unexpected()
        }
    }

    private mutating func unicode() throws -> [UInt8] {
        var units = [try unit()]
        if (0xD800..<0xDC00).contains(units[0]) {
            guard take("\\"), take("u") else { throw unexpected() }
            units.append(try unit())
        }
        let text = String(decoding: units, as: UTF16.self)
        guard !text.unicodeScalars.contains("\u{FFFD}") || units == [0xFFFD] else {
            throw JsonError(description: "a text holds half a character")
        }
        return [UInt8](text.utf8)
    }

    private mutating func unit() throws -> UInt16 {
        guard at + 4 <= bytes.count else { throw unexpected() }
        let word = String(decoding: bytes[at..<at + 4], as: UTF8.self)
        guard word.allSatisfy(\.isHexDigit), let found = UInt16(word, radix: 16) else {
            throw unexpected()
        }
        at += 4
        return found
    }

    private mutating func word(_ word: String, _ value: Json) throws -> Json {
        for character in word.utf8 {
            guard peek() == character else { throw unexpected() }
            at += 1
        }
        return value
    }

    private mutating func skipBlanks() {
        while let byte = peek(), [0x20, 0x0A, 0x0D, 0x09].contains(byte) { at += 1 }
    }

    private func peek() -> UInt8? {
        at < bytes.count ? bytes[at] : nil
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard peek() == UInt8(ascii: character) else { return false }
        at += 1
        return true
    }

    private func unexpected() -> JsonError {
        guard let byte = peek() else { return JsonError(description: "it ends too early") }
        let character = String(decoding: [byte], as: UTF8.self)
        return JsonError(description: "'\(character)' at byte \(at) is not expected")
    }
}
