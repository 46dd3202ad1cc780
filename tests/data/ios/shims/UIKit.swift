// What ios_demo uses of UIKit, by hand.
import Foundation

@MainActor public final class UIApplication {
    public static var shared: UIApplication { fatalError() }
    public var isIdleTimerDisabled: Bool { get { fatalError() } set {} }
}
