import Foundation

/// SHA-256 (FIPS 180-4) of bytes, in hex; Linux has no CryptoKit.
func sha256(_ data: Data) -> String {
    var hash: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a,
        0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    var message = [UInt8](data)
    let bits = UInt64(message.count) * 8
    message.append(0x80)
    while message.count % 64 != 56 { message.append(0) }
    message += (0..<8).map { UInt8(truncatingIfNeeded: bits >> (56 - 8 * $0)) }
    for start in stride(from: 0, to: message.count, by: 64) {
        mix(&hash, schedule(message, start))
    }
    return hash.map { String(format: "%08x", $0) }.joined()
}

private func schedule(_ message: [UInt8], _ start: Int) -> [UInt32] {
    var words = (0..<16).map { index in
        (0..<4).reduce(UInt32(0)) { $0 << 8 | UInt32(message[start + 4 * index + $1]) }
    }
    for index in 16..<64 {
        let (a, b) = (words[index - 15], words[index - 2])
        let small = rotate(a, 7) ^ rotate(a, 18) ^ (a >> 3)
        let large = rotate(b, 17) ^ rotate(b, 19) ^ (b >> 10)
        words.append(words[index - 16] &+ small &+ words[index - 7] &+ large)
    }
    return words
}

private func mix(_ hash: inout [UInt32], _ words: [UInt32]) {
    var v = hash
    for index in 0..<64 {
        let s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)
        let choice = (v[4] & v[5]) ^ (~v[4] & v[6])
        let first = v[7] &+ s1 &+ choice &+ rounds[index] &+ words[index]
        let s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)
        let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2])
        v = [first &+ s0 &+ majority, v[0], v[1], v[2], v[3] &+ first, v[4], v[5], v[6]]
    }
    for index in 0..<8 { hash[index] = hash[index] &+ v[index] }
}

private func rotate(_ value: UInt32, _ count: UInt32) -> UInt32 {
    value >> count | value << (32 - count)
}

/// The first 32 bits of the fractions of the cube roots of the first 64 primes.
private let rounds: [UInt32] = primes(64).map { prime in
    let root = cubeRootScaled(prime)
    return UInt32(truncatingIfNeeded: root)
}

private func primes(_ count: Int) -> [UInt64] {
    var found: [UInt64] = []
    var next: UInt64 = 2
    while found.count < count {
        if found.allSatisfy({ next % $0 != 0 }) { found.append(next) }
        next += 1
    }
    return found
}

/// floor(2^32 · cube root of n), exactly: the largest r with r³ ≤ n · 2^96.
private func cubeRootScaled(_ n: UInt64) -> UInt64 {
    var root: UInt64 = 0
    for bit in stride(from: 35, through: 0, by: -1) {
        let trial = root | (1 << UInt64(bit))
        if isCubeAtMost(trial, n) { root = trial }
    }
    return root
}

/// Whether r³ ≤ n · 2^96, r below 2^36: compared as 128 bits, whose lowest 32 n · 2^96 has as zero.
private func isCubeAtMost(_ r: UInt64, _ n: UInt64) -> Bool {
    let square = r.multipliedFullWidth(by: r)
    let low = square.low.multipliedFullWidth(by: r)
    let high = square.high &* r &+ low.high
    return high < n << 32 || (high == n << 32 && low.low == 0)
}
