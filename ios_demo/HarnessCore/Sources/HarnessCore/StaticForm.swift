import Foundation

/// How to call a program whose methods have fixed lengths and whose cache the caller keeps:
/// `StaticForm` of mobilepack's manifest.json.
public struct StaticForm: Decodable {
    /// Positions that the cache holds.
    public let past: Int
    /// Tokens of the method `prefill`; `decode` takes one.
    public let prefillTokens: Int
    /// Added to a score that does not count.
    public let maskValue: Float
    /// Sliding window of each mask in tokens, 0 for full attention.
    public let windows: [Int]
    /// How keys lie in the cache.
    public let keys: Keys
    /// Whether the program keeps the cache itself, in states.
    public let states: Bool

    public enum Keys: String, Decodable {
        /// Keys [1, heads, channels, past], values [1, heads, past, channels].
        case channelsFirst = "channels_first"
        /// Both [1, heads, past, channels].
        case positionsFirst = "positions_first"
    }

    private enum CodingKeys: String, CodingKey {
        case past, windows, keys, states
        case prefillTokens = "prefill_tokens"
        case maskValue = "mask_value"
    }

    public init(from decoder: Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        past = try values.decode(Int.self, forKey: .past)
        prefillTokens = try values.decode(Int.self, forKey: .prefillTokens)
        maskValue = try values.decode(Float.self, forKey: .maskValue)
        windows = try values.decode([Int].self, forKey: .windows)
        keys = try values.decodeIfPresent(Keys.self, forKey: .keys) ?? .channelsFirst
        states = try values.decodeIfPresent(Bool.self, forKey: .states) ?? false
    }

    private struct Manifest: Decodable {
        let form: StaticForm?

        private enum CodingKeys: String, CodingKey {
            case form = "static"
        }
    }

    /// Reads the form from a package's manifest.json; nil if its program is of the dynamic one.
    public static func read(_ manifest: Data) throws -> StaticForm? {
        try JSONDecoder().decode(Manifest.self, from: manifest).form
    }

    /// What one call is given; T is 1 or `prefillTokens`, padding comes first.
    public struct Inputs {
        public let method: String
        public let padding: Int
        /// int32 [1, ids], of which the last T count.
        public let tokens: [Int32]
        /// int32 [1, ids], of which the last T count.
        public let positions: [Int32]
        /// One per window, [1, 1, T, columns] by rows.
        public let masks: [[Float]]
    }

    /// The lengths that a method's inputs really have.
    public struct Widths {
        let ids: Int
        let columns: Int

        public init(ids: Int, columns: Int) {
            self.ids = ids
            self.columns = columns
        }
    }

    /// The method that takes so many tokens.
    public func method(for count: Int) -> String { count == 1 ? "decode" : "prefill" }

    /// The inputs for tokens from a position on; nil if they do not fit.
    ///
    /// Without widths, ids and masks are as long as they need to be.
    public func inputs(
        _ tokens: ArraySlice<Int>, at position: Int, _ given: Widths? = nil
    ) -> Inputs? {
        let count = tokens.count
        let width = count == 1 ? 1 : prefillTokens
        let widths = given ?? Widths(ids: width, columns: past + width)
        guard count >= 1, count <= width, position <= past, widths.ids >= width,
            widths.columns >= past + width
        else { return nil }
        let padding = width - count
        let blanks = [Int32](repeating: 0, count: widths.ids - count)
        return Inputs(
            method: method(for: count),
            padding: padding,
            tokens: blanks + tokens.map { Int32($0) },
            positions: blanks + (position..<position + count).map { Int32($0) },
            masks: windows.map {
                mask(
                    window: $0, at: position, padding: padding, width: width,
                    columns: widths.columns)
            })
    }

    /// 0 where a query may look, else the mask value. Padded queries see what the first real one
    /// sees, so that no row is without a key.
    private func mask(
        window: Int, at position: Int, padding: Int, width: Int, columns: Int
    ) -> [Float] {
        var mask = [Float](repeating: maskValue, count: width * columns)
        for query in 0..<width {
            let row = max(query - padding, 0) + position
            for column in 0..<past + width {
                let isOld = column < past
                let key = isOld ? column : column - past - padding + position
                let isReal = isOld ? column < position : column - past >= padding
                if isReal && key <= row && (window == 0 || key > row - window) {
                    mask[query * columns + column] = 0
                }
            }
        }
        return mask
    }
}
