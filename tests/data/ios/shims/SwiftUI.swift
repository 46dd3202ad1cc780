// What ios_demo uses of SwiftUI, by hand: enough to check names, labels and types on Linux.
// Source of the declarations: developer.apple.com/documentation/swiftui.
@_exported import Foundation
@_exported import Observation

public protocol View {
    associatedtype Body: View
    @ViewBuilder @MainActor var body: Body { get }
}

extension Never: View { public var body: Never { fatalError() } }
extension Optional: View where Wrapped: View { public var body: Never { fatalError() } }

public struct Some: View { public var body: Never { fatalError() } }

@resultBuilder public enum ViewBuilder {
    public static func buildBlock() -> Some { Some() }
    public static func buildBlock<V: View>(_ view: V) -> V { view }
    public static func buildBlock<A: View, B: View>(_ a: A, _ b: B) -> Some { Some() }
    public static func buildBlock<A: View, B: View, C: View>(_ a: A, _ b: B, _ c: C) -> Some { Some() }
    public static func buildEither<V: View>(first: V) -> Some { Some() }
    public static func buildEither<V: View>(second: V) -> Some { Some() }
    public static func buildIf<V: View>(_ view: V?) -> V? { view }
}

public protocol Scene {}
public struct WindowGroup<Content: View>: Scene {
    public init(@ViewBuilder content: () -> Content) {}
}

@MainActor public protocol App {
    associatedtype Content: Scene
    var body: Content { get }
    init()
}
extension App { public static func main() {} }

@propertyWrapper public struct State<Value> {
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
    public var wrappedValue: Value { get { fatalError() } nonmutating set {} }
    public var projectedValue: Binding<Value> { fatalError() }
}
public struct Binding<Value> {}

public struct Text: View {
    public init(_ text: String) {}
    public var body: Never { fatalError() }
    public func font(_ font: Font) -> Text { self }
}
public struct Font {
    public static let caption = Font()
    public func monospaced() -> Font { self }
}
public struct Button: View {
    public init(_ title: String, action: @escaping () -> Void) {}
    public var body: Never { fatalError() }
}
public struct TextField: View {
    public init(_ title: String, text: Binding<String>) {}
    public var body: Never { fatalError() }
}
public struct RoundedBorderTextFieldStyle {}
public protocol TextFieldStyle {}
extension RoundedBorderTextFieldStyle: TextFieldStyle {}
extension TextFieldStyle where Self == RoundedBorderTextFieldStyle {
    public static var roundedBorder: RoundedBorderTextFieldStyle { Self() }
}
public enum HorizontalAlignment { case leading, center, trailing }
public enum Alignment { case leading, center, trailing }
public struct ForEach<Data: RandomAccessCollection, Content: View>: View
where Data.Element: Identifiable {
    public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content) {}
    public var body: Never { fatalError() }
}
public struct ScrollView<Content: View>: View {
    public init(@ViewBuilder content: () -> Content) {}
    public var body: Never { fatalError() }
}
public struct VStack<Content: View>: View {
    public init(spacing: Double? = nil, @ViewBuilder content: () -> Content) {}
    public var body: Never { fatalError() }
}
public struct LazyVStack<Content: View>: View {
    public init(
        alignment: HorizontalAlignment = .center, spacing: Double? = nil,
        @ViewBuilder content: () -> Content
    ) {}
    public var body: Never { fatalError() }
}
public struct HStack<Content: View>: View {
    public init(@ViewBuilder content: () -> Content) {}
    public var body: Never { fatalError() }
}
public struct NavigationStack<Content: View>: View {
    public init(@ViewBuilder root: () -> Content) {}
    public var body: Never { fatalError() }
}
public protocol ShapeStyle {}
public struct Color: ShapeStyle {
    public static let blue = Color()
    public static let gray = Color()
    public func opacity(_ opacity: Double) -> Color { self }
}
public struct HierarchicalShapeStyle: ShapeStyle {}
extension ShapeStyle where Self == HierarchicalShapeStyle {
    public static var secondary: HierarchicalShapeStyle { Self() }
}
public protocol Shape {}
public struct RoundedRectangle: Shape {
    public init(cornerRadius: Double) {}
}
extension View {
    public func padding(_ length: Double? = nil) -> Some { Some() }
    public func frame(maxWidth: Double? = nil, alignment: Alignment = .center) -> Some { Some() }
    public func background<S: ShapeStyle>(_ style: S) -> Some { Some() }
    public func foregroundStyle<S: ShapeStyle>(_ style: S) -> Some { Some() }
    public func clipShape<S: Shape>(_ shape: S) -> Some { Some() }
    public func navigationTitle(_ title: String) -> Some { Some() }
    public func toolbar<V: View>(@ViewBuilder content: () -> V) -> Some { Some() }
    public func onAppear(perform action: (() -> Void)? = nil) -> Some { Some() }
    public func onSubmit(_ action: @escaping () -> Void) -> Some { Some() }
    public func disabled(_ disabled: Bool) -> Some { Some() }
    public func textFieldStyle<S: TextFieldStyle>(_ style: S) -> Some { Some() }
}
